"""The runs of a report: every run once, and a command that trains exactly this run."""

import shlex
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose

from loralab.config.arguments import translated
from loralab.config.compose import configs
from loralab.config.overrides import settings
from loralab.config.schema import from_hydra
from loralab.runs.plan import plan
from loralab.studies.report_runs import commands, runs_of, varying
from loralab.sweeps.study import open_study
from tests.reported import finished, reported
from tests.small_runs import SMALL
from tests.small_studies import NAME


def test_a_command_trains_exactly_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both stages, of which the second has a setting more: its words compose a config with the run's hash."""
    root, store = reported(tmp_path / "checkout", monkeypatch), tmp_path / "store"
    sweep = root / "sweeps" / f"{NAME}.yaml"
    sweep.write_text(sweep.read_text().replace('{seed: "range(100,102)"}', '{seed: "range(100,102)", lora.alpha: 4}'))
    with open_study(NAME, SMALL, store=store) as study:
        first = pd.DataFrame(
            [{name: value for name, value in settings(job).items() if name in study.axes} for job in study.grid]
        )
        scored = first.assign(status="success")
        scored["validation/loss"] = first["optim.lr"]
        scored.insert(0, "stage", "grid")
        jobs = [*study.grid, *study.second_jobs(scored)]
        rows = [{name: settings(job).get(name, float("nan")) for name in study.axes} for job in jobs]
        hashes = [study.planned(job).directory.hash for job in jobs]
        frame = pd.DataFrame(rows).assign(hash=hashes, stage="grid", status="success")
        told = commands(study, frame, store)
    assert list(told) == hashes and len(set(hashes)) == 12
    for digest in (hashes[0], hashes[-1]):
        python, file, *words = shlex.split(told[digest])
        flags, values = translated(words)
        assert (python, file, flags) == ("python", "train.py", [])
        with configs(root / "conf"):
            config = from_hydra(compose("config", values))
        assert plan(config).directory.hash == digest and Path(config.store) == store


def test_a_run_that_the_results_do_not_tell_from_another_has_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(tmp_path / "checkout", monkeypatch)
    with open_study(NAME) as study:
        assert len(commands(study, finished(), Path("outputs"))) == 12
        assert commands(study, finished().drop(columns="optim.lr"), Path("outputs")) == {}


def test_runs_are_listed_once_with_what_varies_and_without_thinned_curves() -> None:
    frame = finished().assign(**{"validation/loss@0.1": 0.7, "seconds": 12.345})
    frame.insert(list(frame).index("status"), "lora.rank", 8)
    frame.insert(list(frame).index("status"), "train.epochs", float("nan"))
    found = runs_of(pd.concat([frame, frame]), {"0000000001": "train it"}, {"0000000002": "runs/x"})
    assert found is not None and len(found.rows) == 12
    assert found.columns == ("stage", "seed", "lora.ratio", "optim.lr", "status", "validation/loss", "seconds")
    assert found.rows[1].cells == ("grid", "0", "1", "0.004", "success", "0.5040", "12.3")
    assert found.numeric == (False, True, True, True, False, True, True)
    assert found.shared == {"lora.rank": "8"}
    assert [(run.command, run.directory) for run in found.rows[1:3]] == [("train it", ""), ("", "runs/x")]
    assert list(varying(frame)) == ["stage", "seed", "lora.ratio", "optim.lr"]


def test_results_that_are_not_of_runs_have_none() -> None:
    assert runs_of(finished().drop(columns="hash"), {}, {}) is None
