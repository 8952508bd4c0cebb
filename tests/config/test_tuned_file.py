"""tuned=FILE: the file's overrides come first, those of the command line win, and a foreign file is one line."""

from pathlib import Path

import pytest
import yaml

from loralab.config.arguments import translated
from loralab.config.tuned_file import with_tuned
from loralab.errors import UserError

OVERRIDES = ["task=trec", "lora.rank=16", "optim.lr=0.0016"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump({"tune": 1, "overrides": OVERRIDES}))
    return path


def test_arguments_without_it_are_unchanged() -> None:
    assert with_tuned(["-m", "seed=0,1", "task=trec"]) == ["-m", "seed=0,1", "task=trec"]


def test_the_files_overrides_come_before_the_others(file: Path) -> None:
    assert translated([f"tuned={file}", "seed=3"]) == ([], [*OVERRIDES, "seed=3"])
    assert translated([f"tuned={file.parent}", "seed=3"]) == ([], [*OVERRIDES, "seed=3"])
    assert translated(["seed=0,1", "-m", f"tuned={file}"]) == (["--multirun"] * 0 + ["-m"], [*OVERRIDES, "seed=0,1"])


@pytest.mark.parametrize("given", ["task=sst2", "+task=sst2", "lora.rank=4", "~optim.lr"])
def test_a_key_of_the_command_line_replaces_the_files(given: str, file: Path) -> None:
    key = given.lstrip("+~").partition("=")[0]
    assert with_tuned([f"tuned={file}", given]) == [
        *(text for text in OVERRIDES if not text.startswith(f"{key}=")),
        given,
    ]


def test_a_study_can_be_given_it_too(file: Path) -> None:
    flags, settings = translated(["sweeps=first", f"tuned={file}"])
    assert flags == ["--multirun"] and set(OVERRIDES) < set(settings)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: [", "is no YAML"),
        ("\0", "is no YAML"),
        ("overrides: [a=1]", "was not written by `loralab tune`"),
        ("[1, 2]", "was not written by `loralab tune`"),
        ("{tune: 2, overrides: [a=1]}", "was not written by `loralab tune`"),
        ("{tune: 1, overrides: a=1}", "was not written by `loralab tune`"),
        ("{tune: 1, overrides: [1]}", "was not written by `loralab tune`"),
        ("{tune: 1, overrides: ['--config-dir=/tmp']}", "has the override '--config-dir=/tmp', which is no setting"),
        ("{tune: 1, overrides: ['hydra.run.dir=/tmp']}", "has the override 'hydra.run.dir=/tmp'"),
        ("{tune: 1, overrides: ['hydra/launcher=basic']}", "has the override 'hydra/launcher=basic'"),
        ("{tune: 1, overrides: ['tuned=other']}", "has the override 'tuned=other'"),
        ("{tune: 1, overrides: ['seed']}", "has the override 'seed'"),
    ],
)
def test_a_foreign_file_is_one_line(content: str, line: str, file: Path) -> None:
    file.write_text(content)
    with pytest.raises(UserError) as raised:
        translated([f"tuned={file}"])
    assert str(raised.value).startswith("tuned: ") and line in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_and_two_of_them_are_one_line(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tuned: there is no .*nowhere; `loralab tune` prints the path"):
        translated([f"tuned={tmp_path / 'nowhere'}"])
    with pytest.raises(UserError, match=r"tuned: there is no .*other/tune.yaml; `loralab tune` prints the path"):
        (tmp_path / "other").mkdir()
        translated([f"tuned={tmp_path / 'other'}"])
    with pytest.raises(UserError, match="it takes one file"):
        translated([f"tuned={file}", f"tuned={file}"])
