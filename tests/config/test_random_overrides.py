"""Random command lines: each is planned, or ends with one line; nothing is written but into the store."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loralab.compat import hydra as compat
from loralab.config.arguments import in_arguments, translated
from loralab.config.explain import explain
from loralab.config.schema import from_hydra
from loralab.runs.plan import plan
from loralab.sweeps.grid import Spec, jobs
from loralab.text import shown
from tests.config.random_overrides import arguments
from tests.processes import Warm
from tests.small_runs import CONF, SMALL, composer

LONGEST = 20.0  # seconds that a command line may take to be read and planned, on a busy machine


def planned(given: list[str], store: Path) -> str | None:
    """What the command does before it trains, without Hydra's start: None where it would train, else its line."""
    known = compat.flags()
    parser = compat.arguments_parser()
    assert known is not None and parser is not None
    try:
        flags, settings = translated(given)
        if line := in_arguments([*flags, *settings], known):
            return line
        parsed: Any = parser.parse_args([*flags, *settings])
        grid = jobs(Spec.from_mapping({}), parsed.overrides)[:2] if parsed.multirun else [parsed.overrides]
        for job in grid:
            plan(from_hydra(composer().settings([*SMALL, f"store={store}", *job])))
    except Exception as error:  # what is not explained is a traceback of the command
        line = explain(error)
        if line is None:
            raise AssertionError(f"{given}: {type(error).__name__}: {error}") from error
        return line
    return None


@pytest.mark.parametrize("first", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_a_random_command_line_is_planned_or_ends_with_one_line(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines, plain = [], 0
    for seed in range(first, 60 if first == 0 else 4000):
        given = arguments(seed)
        start = time.monotonic()
        line = planned(given, tmp_path / "store")
        assert time.monotonic() - start < LONGEST, given
        plain += line is None
        if line is not None:
            lines.append(line)
            assert line and line == shown(line) and len(line) < 8000, (given, line)
    assert len(lines) > 3 * plain > 0, "most are mistakes, some are none"
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 4000, 40))
def test_a_random_command_ends_with_status_0_or_one_line(seed: int, tmp_path: Path) -> None:
    given = ["" if "\0" in argument else argument for argument in arguments(seed)]
    said, errors = tmp_path / "said" / "output", tmp_path / "said" / "errors"
    (tmp_path / "here").mkdir()
    command = [sys.executable, str(CONF.parent / "train.py"), *SMALL, "train.steps=1", f"store={tmp_path / 'store'}"]
    extra = ["--dry-run"] if {"-m", "--multirun", "--dry-run"} & set(given) else []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = Warm([*command, *given, *extra], said, errors=errors, cwd=tmp_path / "here", env=environment)
    status, text = started.status(), errors.read_text()
    assert status in (0, 2) and "Traceback" not in text, (given, text)
    if status == 2:
        (line,) = text.splitlines()
        assert line.startswith("error: "), (given, text)
    left = {path.name for path in (tmp_path / "here").iterdir()} - {"train.log"}  # of hydra/job_logging=default
    assert not left and {path.name for path in tmp_path.iterdir()} <= {"here", "said", "store"}, given
