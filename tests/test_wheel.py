"""The wheel alone, in an empty folder and without the checkout, does what a checkout does, and writes there."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from loralab.store.provenance import code_fingerprint
from tests.small_runs import CONF, SMALL

pytest.importorskip("hatchling", reason="the wheel is built by hatchling, of the extra `test`")

ROOT = CONF.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def said(site: Path, where: Path, *words: str) -> str:
    """What `python WORDS` prints in a folder; -S: without the .pth file of an editable install."""
    there = [str(site), *dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(there), "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-S", "-P", *words]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_has_the_settings_studies_and_results_of_the_checkout_and_no_figures(site: Path) -> None:
    shipped = site / "loralab" / "shipped"
    asked = ["git", "-C", str(ROOT), "ls-files", "conf", "sweeps", "analysis"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("no git checkout")
    ours = {name for name in listed if not name.startswith(("analysis/figures/", "analysis/claims.md"))}
    assert {name for name in ours if (ROOT / name).is_file()} <= files(shipped)
    assert {name.partition("/")[0] for name in files(shipped)} == {"conf", "sweeps", "analysis"}
    assert not (shipped / "analysis" / "figures").exists()
    assert all((shipped / name).read_bytes() == (ROOT / name).read_bytes() for name in files(shipped))


def test_it_has_every_file_of_the_package_such_as_the_pages(site: Path) -> None:
    asked = ["git", "-C", str(ROOT / "src"), "ls-files", "loralab"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    assert {name for name in listed if (ROOT / "src" / name).is_file()} <= files(site)
    assert (site / "loralab" / "inspect" / "watch_page" / "index.html").is_file()


def test_it_trains_in_an_empty_folder_with_the_code_of_the_checkout(site: Path, tmp_path: Path) -> None:
    version = said(site, tmp_path, "-m", "loralab", "--version")
    assert f"code {code_fingerprint()} (no git checkout), in {site / 'loralab'}" in version
    assert "success" in said(site, tmp_path, "-m", "loralab", "train", *SMALL, "train.steps=2")
    (record,) = tmp_path.glob("outputs/runs/tiny-*/record.json")
    assert json.loads(record.read_text())["git"] == {"commit": None, "diff": None}
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


CODE = """
import loralab
run = loralab.train(*{settings!r}, seed=5, train=dict(steps=2))
assert loralab.load_run(run.directory.hash).model is not None
assert len(loralab.sweep(*{settings!r}, seed=[5, 6], train=dict(steps=2), hydra=dict(launcher=dict(slots=1))).runs) == 2
"""


@pytest.mark.slow
def test_studies_figures_reports_and_python_work_there(site: Path, tmp_path: Path) -> None:
    settings = ("smoke=true", "tracker=none", "train.device=cpu", "train.threads=1", "hydra.launcher.slots=1")
    loralab = ("-m", "loralab")
    assert "6 runs (6 success)" in said(site, tmp_path, *loralab, "study", "first", *settings)
    assert "analysis/figures/rate_law.png" in said(site, tmp_path, *loralab, "figure", "rate_law")
    assert "test" in said(site, tmp_path, *loralab, "show", "tiny-rotten_tomatoes-lora-r8-x4-s0")
    said(site, tmp_path, *loralab, "export", "tiny-rotten_tomatoes-lora-r8-x4-s0", "--to", "mine")
    said(site, tmp_path, *loralab, "report", "first", "--to", "page.html")
    said(site, tmp_path, *loralab, "study", "new", "mine")
    assert "6 runs (6 success)" in said(site, tmp_path, *loralab, "study", "mine", *settings)
    said(site, tmp_path, "-c", CODE.format(settings=list(SMALL)))
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"outputs", "analysis", "sweeps", "mine", "page.html", "page_files"}
    assert files(tmp_path / "analysis") >= {"figures/rate_law.png", "mine.py"}
