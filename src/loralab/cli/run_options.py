"""The options of `loralab runs`, `loralab rm` and `loralab sweep`, and what names a run in every command."""

import argparse
from pathlib import Path

__all__ = ["EXAMPLES", "RM_EXAMPLES", "RUN", "SWEEP_EXAMPLES", "add_options", "add_rm_options", "add_sweep_options"]

RUN = "its directory, name=, folder name or hash, or a beginning of these two that no other run has"
EXAMPLES = (
    "loralab runs",
    "loralab runs --where task=trec --where lora.ratio=4 --where 'optim.lr<1e-3'",
    "loralab runs --sort test/accuracy --limit 10       the ten best",
    "loralab runs --where tags=paper --csv > paper.csv",
    "loralab runs --json | jq -r '.[] | select(.status == \"failed\") | .path'",
)
RM_EXAMPLES = (
    "loralab rm 47d00a88bf 9e1c",
    "loralab rm --where status=failed --dry-run         what it would remove",
    "loralab rm --where tags=trial",
)
SWEEP_EXAMPLES = (
    "loralab sweep                                  the last one; and figures/ID.png in the store",
    "loralab sweep first --metric loss              first-... by validation/loss",
    "loralab sweep last --where task=trec --to trec.png",
    "loralab sweep all --where tags=mine --csv      any runs of the store as one sweep",
)
_WHERE = "only runs with KEY=VALUE, or !=, <, <=, >, >=; given several times, all of them"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab runs`."""
    parser.add_argument("--where", metavar="CONDITION", action="append", default=[], help=_WHERE)
    text = "by a setting, a score (the best first) or seconds, ended, ... (default: the latest last)"
    parser.add_argument("--sort", metavar="KEY", help=text)
    parser.add_argument("--reverse", action="store_true", help="in the other order")
    text = "only the first N runs of --sort, or the latest N"
    parser.add_argument("--limit", metavar="N", type=_at_least_one, help=text)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects with every setting and score")
    form.add_argument("--csv", action="store_true", help="print a CSV of the settings that differ and every score")


def add_rm_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab rm`."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help=RUN)
    parser.add_argument("--where", metavar="CONDITION", action="append", default=[], help=_WHERE)
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab sweep`."""
    text = "the last one (default), every run of the store, or an ID as printed, or a beginning that no other has"
    parser.add_argument("sweep", metavar="last|all|ID", nargs="?", default="last", help=text)
    text = "the score to rank by (default: the primary metric on validation, or what its study selects by)"
    parser.add_argument("--metric", metavar="KEY", help=text)
    parser.add_argument("--where", metavar="CONDITION", action="append", default=[], help=_WHERE)
    text = "only the first N configurations of each task"
    parser.add_argument("--limit", metavar="N", type=_at_least_one, help=text)
    parser.add_argument("--to", type=Path, metavar="FILE", help="the figure (default: ID.png in the store's figures/)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all numbers, and draw only with --to")
    form.add_argument("--csv", action="store_true", help="print a CSV of the configurations, and draw only with --to")


def _at_least_one(text: str) -> int:
    """The number of --limit."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; it must be a whole number, at least 1")
    return int(text)
