"""Tests of the trackers' settings: what a tracker has no use for, and one that is not installed, are one line each."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from loralab.config.trackers import TRACKERS, check_tracker
from loralab.errors import UserError
from tests.small_runs import config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModuleSpec("some", None, origin="some.py")
    monkeypatch.setattr("loralab.config.trackers.find_spec", lambda name: found)


@pytest.mark.usefixtures("installed")
def test_every_tracker_composes_and_each_extra_is_declared(tmp_path: Path) -> None:
    for name in TRACKERS:
        assert config(tmp_path, f"tracker={name}").tracker.name == name
    assert {path.stem for path in (ROOT / "conf" / "tracker").glob("*.yaml")} == set(TRACKERS)
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    for name in ("tensorboard", "mlflow", "trackio"):
        assert f"\n{name} = [" in extras


@pytest.mark.usefixtures("installed")
def test_a_setting_that_only_wandb_has_is_refused() -> None:
    check_tracker(name="wandb", mode="online", entity="me")
    with pytest.raises(UserError, match=r"tracker\.mode: got offline; with tracker=mlflow it is auto or disabled"):
        check_tracker(name="mlflow", mode="offline", entity=None)
    with pytest.raises(UserError, match=r"tracker\.entity: got 'me'; only W&B has entities"):
        check_tracker(name="trackio", mode="auto", entity="me")


def test_a_tracker_that_is_not_installed_names_its_extra_also_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio").mkdir()  # as in a store: Python takes it for a package without a file
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(UserError, match=r"tracker: got trackio, which is not installed; run: pip install 'loralab\[tr"):
        check_tracker(name="trackio", mode="auto", entity=None)
    check_tracker(name="trackio", mode="disabled", entity=None)
