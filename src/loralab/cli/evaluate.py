"""`loralab evaluate`: how good a run's predictions are, class by class, on a split of its data or on a file."""

import argparse
import json
from pathlib import Path

from loralab.cli.inspections import drawn
from loralab.cli.run_options import RUN
from loralab.errors import UserError
from loralab.text import printed

__all__ = ["EXAMPLES", "add_options", "evaluate"]

EXAMPLES = (
    "loralab evaluate 47d00a88bf                       the test split; and figures/evaluate-NAME-test.png in the store",
    "loralab evaluate 47d0 --split validation",
    "loralab evaluate 47d0 labelled.csv --label class --json | jq .classes",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab evaluate`."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    meaning = "labelled rows (csv, tsv, jsonl, json, xlsx or parquet), instead of the run's own data"
    parser.add_argument("file", metavar="FILE", nargs="?", help=meaning)
    parser.add_argument(
        "--split", metavar="NAME", help="test, validation or train of the run's own data (default: test)"
    )
    meaning = "FILE's column of text, once for each text that the run reads (default: as in its training data)"
    parser.add_argument("--text", action="append", metavar="COLUMN", help=meaning)
    parser.add_argument("--label", metavar="COLUMN", help="FILE's column of labels (default: as in the training data)")
    parser.add_argument("--worst", type=int, default=10, metavar="N", help="rows with the largest losses (default: 10)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print all numbers, and draw only with --to")
    parser.add_argument("--to", type=Path, metavar="FILE", help="the figure (default: in the store's figures/)")


def evaluate(given: argparse.Namespace) -> int:
    """Prints the report and draws the figure; returns the exit status."""
    from loralab.store.run_directory import find

    if given.worst < 0:
        raise UserError(f"--worst: got {given.worst}; it must be 0 or more")
    if given.file is not None and given.split is not None:
        raise UserError(f"--split: got {given.split} beside {given.file}; name a split or a file")
    if given.file is None and (given.text or given.label):
        raise UserError("--text, --label: these name columns of a FILE, and none is given")
    run = find(given.store, given.run)  # before torch is imported
    from loralab.inspect import evaluation_report as report
    from loralab.inspect.evaluation import of_file, of_split

    if given.file is None:
        found = of_split(run, given.split or "test", device=given.device)
    else:
        found = of_file(run, given.file, text=given.text, label=given.label, device=given.device)
    measured = report.measures(found)
    if given.json:
        print(json.dumps(report.as_json(found, measured, worst=given.worst), indent=2))
    else:
        print(printed(report.lines(found, measured, worst=given.worst)))
    draw = report.drawing(found, measured)
    if draw is not None:
        return drawn(given, f"evaluate-{found.run}-{Path(found.what).stem}", draw)
    if given.to is not None:
        raise UserError("--to: answers in text have no figure; leave it out")
    return 0
