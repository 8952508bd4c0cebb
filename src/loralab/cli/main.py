"""The `loralab` command: studies, and inspection of trained runs. Subcommands import heavy modules on use."""

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from loralab import startup
from loralab.cli import evaluate, inspections, predict, run_options, tune, watch
from loralab.cli.dispatch import ENTRIES, dispatched
from loralab.cli.run_options import RUN
from loralab.compat.home import use_temporary_caches
from loralab.errors import UserError, explain_os_error
from loralab.imports import with_rare_collection
from loralab.streams import finish
from loralab.text import printed, shown

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]
ADAPTER = f"a folder with adapter_config.json, as PEFT writes it, or a run: {RUN}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status: 0 for success, 2 for a user's mistake or what cannot be written.

    1: something is missing (doctor), runs failed (study), or some studies failed (figure all, claims, report).
    A reader that stops reading (head, less) is a success. arguments: None for this process's, which is then prepared.
    """
    if arguments is None:
        startup.begin()
    use_temporary_caches()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if (done := dispatched(words, _parser)) is not None:
        return done
    try:
        startup.refuse_undecoded(words)
        with with_rare_collection():
            status = _run(words)
    except (UserError, OSError) as error:
        line = explain_os_error(error) if isinstance(error, OSError) else str(error)
        if line is None:
            raise
        print(f"error: {shown(line)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except SystemExit as ended:  # argparse's, of --help or a mistake
        sys.exit(finish(int(ended.code or 0), unread=0))
    return finish(status, unread=0)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(given, "overrides") or any(text.startswith("-") for text in rest)):
        getattr(given, "asked", parser).refuse(rest)
    if rest:  # argparse accepts no more settings after an option
        given.overrides += rest
    _take_store(given)
    if given.command is None:
        parser.print_help()
        return 0
    command: Command = given.command
    return command(given)


def _take_store(given: argparse.Namespace) -> None:
    """store=DIR, as train.py has it, is --store of the commands that take settings; it is no setting of a study."""
    for name in ("overrides", "studies"):
        words = getattr(given, name, [])
        stores = [word.partition("=")[2] for word in words if word.startswith("store=")]
        if stores and hasattr(given, "store"):
            given.store = Path(stores[-1])
            setattr(given, name, [word for word in words if not word.startswith("store=")])


def _runs(given: argparse.Namespace) -> int:
    from loralab.cli import runs

    return runs.runs(given)


def _rm(given: argparse.Namespace) -> int:
    from loralab.cli import runs

    return runs.remove(given)


def _sweep(given: argparse.Namespace) -> int:
    from loralab.cli import sweep

    return sweep.sweep(given)


def _show(given: argparse.Namespace) -> int:
    from loralab.cli import runs
    from loralab.store.run_directory import find, record_of

    run = find(given.store, given.run)
    print(json.dumps(record_of(run), indent=2) if given.json else printed(runs.shown(run)))
    return 0


def _export(given: argparse.Namespace) -> int:
    from loralab.store.run_directory import find

    run = find(given.store, given.run)  # before torch is imported
    from loralab.runs.export import export

    export(run, given.to, merged=given.merged, dtype=given.dtype)
    what = "checkpoint for transformers" if given.merged else "adapter in PEFT format"
    print(printed([f"{run.path.name}: {what} in {given.to}"]))
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from loralab.cli.doctor import doctor

    return doctor(given.store)


def _status(given: argparse.Namespace) -> int:
    from loralab.cli import studies

    return studies.status(given.study, given.overrides, given.store)


def _collect(given: argparse.Namespace) -> int:
    from loralab.cli import studies

    return studies.collect(given.study, given.overrides, given.store, stem=given.name, to=given.to)


def _figure(given: argparse.Namespace) -> int:
    from loralab.cli import studies

    return studies.figure(given.study, given.overrides, given.store, stem=given.name, to=given.to)


def _study(given: argparse.Namespace) -> int:
    from loralab.cli import studies

    if given.study == "new":
        if given.dry_run:
            raise UserError("--dry-run: `loralab study new` trains nothing; leave it out")
        return studies.new(given.overrides)
    return studies.study(given.study, given.overrides, given.store, stem=given.name, dry_run=given.dry_run)


def _claims(_: argparse.Namespace) -> int:
    from loralab.cli import studies

    return studies.claims()


def _report(given: argparse.Namespace) -> int:
    from loralab.cli import studies

    return studies.report([*given.studies, *given.overrides], given.store, stem=given.name, to=given.to)


class _OneLine(argparse.ArgumentParser):
    """Reports a mistake in one line, with the nearest choice and the command for help."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it does not return
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message, re.DOTALL)
        near = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1) if found else []
        hint = f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"error: {shown(message)}{hint}; see `{self.prog} --help`\n")

    def refuse(self, rest: Sequence[str]) -> None:
        """Ends with what the command has no place for, and the nearest of its options."""
        wrong = next((text.partition("=")[0] for text in rest if text.startswith("--")), "")
        near = difflib.get_close_matches(wrong, re.findall(r"--[\w-]+", self.format_usage()), n=1)
        self.error(f"unrecognized arguments: {' '.join(rest)}{f'; did you mean {near[0]}?' if near else ''}")


def _parser() -> _OneLine:
    parser = _OneLine(
        prog="loralab",
        description="Train, inspect, export and study runs of LoRA and LoRA+.",
        epilog="`loralab COMMAND --help` has examples.",
    )
    parser.set_defaults(command=None)
    parser.add_argument("--version", action="store_true", help="print the version and the code's fingerprint")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_OneLine)
    for entry, text in ENTRIES.items():  # for help and completion: Hydra reads the settings
        commands.add_parser(entry, help=text).add_argument("overrides", metavar="KEY=VALUE", nargs="*")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, *examples: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog="\n  ".join(["examples:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        store = Path(os.environ.get("LORALAB_STORE", "outputs"))
        text = "where runs/ is (default: $LORALAB_STORE, else outputs)"
        sub.add_argument("--store", type=Path, metavar="DIR", default=store, help=text)
        sub.set_defaults(command=command, asked=sub)
        return sub

    text = "list runs: the settings that differ, scores, time; the latest last"
    run_options.add_options(add("runs", _runs, text, *run_options.EXAMPLES))
    text = "remove runs, without a question; none of them while one is in progress"
    run_options.add_rm_options(add("rm", _rm, text, *run_options.RM_EXAMPLES))

    text = "show a sweep's configurations, ranked on validation, and draw them: the last one, or any other"
    run_options.add_sweep_options(add("sweep", _sweep, text, *run_options.SWEEP_EXAMPLES))

    show = add(
        "show", _show, "show one run: its settings, scores, parameter groups, origin and files",
        "loralab show 47d00a88bf", "loralab show minilm-trec", "loralab show 47d0 --json | jq .metrics",
    )  # fmt: skip
    show.add_argument("run", metavar="RUN", help=RUN)
    show.add_argument("--json", action="store_true", help="print record.json")

    export = add(
        "export", _export, "export a run's model, as an adapter or a whole checkpoint",
        "loralab export 47d00a88bf --to mine             an adapter for peft.PeftModel.from_pretrained",
        "loralab export 47d00a88bf --to whole --merged   a checkpoint for transformers alone",
    )  # fmt: skip
    export.add_argument("run", metavar="RUN", help=RUN)
    export.add_argument("--to", type=Path, metavar="DIR", required=True, help="a new or empty directory")
    export.add_argument("--merged", action="store_true", help="a whole checkpoint, the adapter merged into it")
    text = "precision of a merged checkpoint (default: fp32)"
    export.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help=text)

    text = "predict classes, numbers or answers for the texts of a file: the same file with more columns"
    predict.add_options(add("predict", predict.predict, text, *predict.EXAMPLES))

    text = "measure a run's predictions: each class, the confusion matrix, AUROC, calibration, the worst rows"
    evaluate.add_options(add("evaluate", evaluate.evaluate, text, *evaluate.EXAMPLES))

    spectrum = add(
        "spectrum", inspections.spectrum, "show an adapter's spectra: ranks, energy, amplification, intruders",
        "loralab spectrum 47d00a88bf                and figures/spectrum-NAME.png and .pdf in the store",
        "loralab spectrum some/peft/folder --top 0  no intruders, which take two SVDs of each W",
    )  # fmt: skip
    spectrum.add_argument("adapter", metavar="RUN", help=ADAPTER)
    text = "singular vectors of W + ΔW to look for intruders among (default: 10)"
    spectrum.add_argument("--top", type=int, metavar="N", default=10, help=text)
    text = "an intruder's largest |cosine| with W's singular vectors is below this (default: 0.5)"
    spectrum.add_argument("--eps", type=float, metavar="X", default=0.5, help=text)
    compare = add(
        "compare", inspections.compare, "show the overlap of two adapters' subspaces, and the overlap by chance",
        "loralab compare 47d00a88bf 9e1c             two runs of different init seeds",
        "loralab compare 47d00a88bf some/peft/folder --json | jq '.layers[].phi.left'",
    )  # fmt: skip
    compare.add_argument("adapters", metavar="RUN", nargs=2, help=ADAPTER)
    probes = add(
        "probes", inspections.probes, "show whether B or A is starved in a run: the effect of single updates",
        "loralab probes 47d00a88bf                  of a run that was trained with probe.every=50",
        "loralab probes 47d00a88bf --json | jq .verdict",
    )  # fmt: skip
    probes.add_argument("run", metavar="RUN", help=RUN)
    curves = add(
        "curves", inspections.curves, "show the learning curves of one or several runs",
        "loralab curves 47d00a88bf                  also while it trains",
        "loralab curves 47d0 9e1c 03ab              one figure, labelled by the settings that differ",
    )  # fmt: skip
    curves.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
    for sub in (spectrum, compare, probes, curves):
        sub.add_argument("--json", action="store_true", help="print all numbers, and draw only with --to")
        sub.add_argument("--to", type=Path, metavar="FILE", help="the figure (default: in the store's figures/)")

    text = "settings that pin or add axes, as on the command line of train.py, e.g. seed=0 or smoke=true"
    status = add(
        "status", _status, "show a study's progress", "loralab status lr_grid",
    )  # fmt: skip
    collect = add(
        "collect", _collect, "write a study's CSV: one row per run, or the rows that its analysis returns",
        "loralab collect lr_grid                    analysis/results/lr_grid.csv",
        "loralab collect lr_grid seed=0 --to mine.csv",
    )  # fmt: skip
    figure = add(
        "figure", _figure, "draw a study's figure from its CSV, or all figures; trains nothing",
        "loralab figure lr_grid                     analysis/figures/lr_grid.png and .pdf; the caption is a .txt",
        "loralab figure all",
        "loralab figure lr_grid --to paper/grid.pdf",
    )  # fmt: skip
    study = add(
        "study", _study, "run a whole study: train the missing runs, or measure; collect; draw",
        "loralab study lr_grid --dry-run            its runs and the time that they take; trains nothing",
        "loralab study lr_grid", "loralab study lr_grid smoke=true",
        "loralab study ratio task=local task.files.train=mine.csv task.text=[text] task.label=label",
        "loralab study new mine                     sweeps/mine.yaml and analysis/mine.py, to be changed",
    )  # fmt: skip
    text = "print the runs and the time that they take, and train nothing"
    study.add_argument("--dry-run", action="store_true", help=text)
    add(
        "claims", _claims, "write the questions and their verdicts: analysis/claims.md and docs/findings.md",
        "loralab claims",
    )  # fmt: skip
    report = add(
        "report", _report, "write studies as an HTML page by question: verdicts, figures, tables, runs, commands",
        "loralab report lr_grid ratio               outputs/report.html, and report_files/ beside it",
        "loralab report all --to supplement.html    every study that has results",
        "loralab report ratio task=local task.files.train=mine.csv    the study that these settings made",
    )  # fmt: skip
    words = "files of sweeps/, without .yaml, or all; then the settings that they were trained with"
    report.add_argument("studies", metavar="STUDY", nargs="+", help=words)
    report.set_defaults(overrides=[])
    report.add_argument("--to", type=Path, metavar="FILE", help="the page (default: report.html in the store)")
    report.add_argument("--name", metavar="NAME", help="of the CSV, if the study was collected with --name")
    for sub in (status, collect, figure, study):
        sub.add_argument("study", metavar="STUDY", help="a file of sweeps/, without .yaml")
        # without the default argparse says that settings are required, where the study is
        sub.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help=text)
    collect.add_argument("--to", type=Path, metavar="FILE", help="the CSV")
    figure.add_argument("--to", type=Path, metavar="FILE", help="the figure; its caption is written beside it")
    for sub in (collect, figure, study):
        words = "name of the CSV and of the figure in the store (default: STUDY, or STUDY-HASH with settings)"
        sub.add_argument("--name", metavar="NAME", help=words)

    text = "search the learning rate for a model and a task, at the cost of about five runs"
    tune.add_options(add("tune", tune.tune, text, *tune.EXAMPLES))

    text = "open a page on this machine that shows a sweep or a tuning session while it trains"
    watch.add_options(add("watch", watch.watch, text, *watch.EXAMPLES))

    add("doctor", _doctor, "check this machine: versions, devices, hub, data, disk", "loralab doctor")
    return parser


if __name__ == "__main__":
    sys.exit(main())
