"""`loralab tune`: its options become the sweeper's, and a mistake is one line before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from loralab.entries import process
from loralab.tuning.options import BUDGET
from tests.cli.test_main import said


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are started; each ends with status 3."""
    commands: list[list[str]] = []

    class Ended:
        def __init__(self, command: list[str], **_: Any) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 3

    monkeypatch.setattr("subprocess.Popen", Ended)
    return commands


def test_alone_it_tunes_the_default_run(
    called: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "a store"
    assert said(capsys, "tune", "--store", str(store)) == (3, "", "")
    settings = ["--multirun", "hydra/sweeper=tune", "hydra.sweeper.search=law", f"store='{store}'"]
    assert called[0] == [*process("train"), *settings]


def test_options_become_settings_of_the_sweeper(called: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--search", "optuna", "--budget", "3", "--trials", "7", "--confirm", "2", "--to", "a.png", "--name", "x")
    space = ("--space", "optim.lr=log(1e-4,1e-2)", "lora.rank=[4,8]")
    status, out, err = said(capsys, "tune", "task=trec", *options, *space, "--store", "s")
    assert (status, out, err) == (3, "", "")
    assert set(called[0]) - set(process("train")) == {
        "--multirun", "hydra/sweeper=tune", "hydra.sweeper.search=optuna", "hydra.sweeper.budget=3",
        "hydra.sweeper.trials=7",
        "hydra.sweeper.confirm=2", "hydra.sweeper.figure=a.png", "hydra.sweeper.name=x", "store=s", "task=trec",
        "hydra.sweeper.space=['optim.lr=log(1e-4,1e-2)','lora.rank=[4,8]']",
    }  # fmt: skip


def test_a_store_among_the_overrides_is_the_store(called: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "tune", "store=mine", "--ratio")
    assert [text for text in called[0] if text.startswith("store=")] == ["store=mine"]
    assert "hydra.sweeper.ratio=true" in called[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--search", "grid"), "argument --search: invalid choice: 'grid'"),
        (("--budget", "much"), "argument --budget: invalid float value: 'much'"),
        (("--budget", "0"), "--budget: got 0.0; it must be a number at least 1"),
        (("--trials", "3"), "--trials: the law search has a budget"),
        (("--search", "optuna"), "--search optuna: needs --space"),
        (("sweeps=first",), "sweeps=first: a study varies what it names"),
        (("--serach", "law"), "unrecognized arguments: --serach"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], line: str, called: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "tune", *arguments)
    assert (status, out) == (2, "") and err.startswith(f"error: {line}") and err.count("\n") == 1
    assert called == []


def test_the_help_names_the_default_budget_and_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "tune", "--help")
    text = " ".join(out.split())
    assert status == 0 and f"(default: {BUDGET:g}, or as much as --trials)" in text and "examples: loralab tune" in text
