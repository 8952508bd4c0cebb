"""Documentation: the files, headings, settings and commands that its pages name exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from loralab.cli.main import main
from loralab.config.compose import CONF
from loralab.config.keys import type_of
from loralab.config.pretrain import PretrainConfig
from loralab.config.schema import Config
from tests.test_layout import ROOMS

ROOT = CONF.parent
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *map(str, (ROOT / "docs").glob("*.md")))
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
TOP = ("src", "conf", "sweeps", "analysis", "docs", "tests", "benchmarks")
# Such as `conf/model/NAME.yaml`: written by the reader.
PLACEHOLDER = re.compile(r"NAME|ROOM|[<*{]|\bX\b|sweeps/mine|sweeps/my_ratio")
STUDIES = ("NAME", "mine", "my_ratio")  # names of a reader's study in the pages
PLUGINS = ("basic", "joblib", "optuna")  # launchers and sweepers that packages of Hydra bring
LEFT = re.compile(r"^ {4,}(?=\S)|^(?=python |loralab |make )")


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST generate them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-") for title in titles}


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The words after `program` in each line of code, or code span, that starts with it; without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [LEFT.sub("", line) for line in joined.splitlines() if LEFT.match(line)]
    for line in [*lines, *re.findall(r"`([^`\n]+)`", joined)]:
        if line.startswith(f"{program} "):
            yield shlex.split(line, comments=True)[len(program.split()) :]


def test_the_readme_is_short() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in slugs(path.read_text(encoding="utf-8")), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    for path in re.findall(rf"`((?:{'|'.join(TOP)})/[^`\s]*)`", TEXTS[page]):
        assert PLACEHOLDER.search(path) or (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_is_said_to_be_in_a_file_is_defined_there(page: Path) -> None:
    for name, path in re.findall(r"`([\w.]+)`\s+(?:in|of)\s+`(src/[^`]+\.py)`", TEXTS[page]):
        last = name.rpartition(".")[2]
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *(?:def|class) {last}\b|^{last}\b.*=", text, re.MULTILINE), f"{page.name}: {name}, {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_settings_in_examples_exist(page: Path) -> None:
    schemas = {"python train.py": Config, "loralab train": Config, "python pretrain.py": PretrainConfig}
    for program, schema in schemas.items():
        for words in commands(TEXTS[page], program):
            for key, _, value in (word.partition("=") for word in words if re.match(r"[a-z][\w./]*=", word)):
                where = f"{page.name}: {key}={value}"
                if key == "sweeps":
                    assert value in STUDIES or (ROOT / "sweeps" / f"{value}.yaml").is_file(), where
                elif (CONF / key).is_dir() or key.startswith("hydra/"):
                    options = {path.stem for path in (CONF / key).glob("*.yaml")}
                    options |= set(PLUGINS) if key.startswith("hydra/") else set()
                    assert value.isupper() or set(value.split(",")) <= options, where
                else:
                    known = key in ("smoke", "tuned") or key.startswith("hydra.") or type_of(key, schema) is not None
                    assert known, where


def test_commands_in_examples_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    subcommands = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(targets) <= 10
    for page, text in TEXTS.items():
        for first, *_ in commands(text, "loralab"):
            assert first in (*subcommands, "--version") or first.isupper(), f"{page.name}: loralab {first}"
        for words in commands(text, "make"):
            assert {word for word in words if "=" not in word} <= targets, f"{page.name}: make {' '.join(words)}"


def test_a_studys_sweep_is_spelled_in_one_way() -> None:
    for path in [*PAGES, *(ROOT / "sweeps").rglob("*.yaml"), *CONF.rglob("*.yaml")]:
        if path.name != "CHANGELOG.md":
            assert "+sweeps" not in path.read_text(encoding="utf-8"), path


def test_every_study_method_and_room_is_on_its_page() -> None:
    def listed(page: str) -> set[str]:
        rows = re.findall(r"^\| (`.+?) \|", TEXTS[ROOT / "docs" / page], re.MULTILINE)
        return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    assert {path.stem for path in (ROOT / "sweeps").glob("*.yaml")} <= listed("studies.md")
    assert {path.stem for path in (CONF / "method").glob("*.yaml")} <= listed("methods.md")
    rooms = [name if (ROOT / "src/loralab" / name).is_dir() else f"{name}.py" for name in ROOMS if name[0] != "_"]
    assert {name.rstrip("/") for name in listed("architecture.md")} >= set(rooms)


def test_the_citation_names_the_version() -> None:
    import loralab

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == loralab.__version__ and citation["license"] == "MIT"
