"""Tests of a config's command: it reproduces the run, and omits defaults."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from loralab.config.command import command, settings
from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.config.stored import stored_config
from loralab.runs.plan import plan
from loralab.runs.record import as_yaml
from tests.small_runs import config


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method=lora", "seed=3"),
        ("method=head", "data_seed=5"),
        ("method=full", "optim.lr=1e-4"),
        ("lora.ratio=4", "lora.targets=[q,k,mlp]", "lora.rank_pattern={v:2}", "optim.head_lr=1e-4", "optim.clip=null"),
        (
            "task=trec",
            "model.default_lr=3e-4",
            "lora.scaling=alpha/sqrt_r",
            "train.bucketing=false",
            "optim.betas=[0.9,0.99]",
        ),
        (
            "lora.rank_pattern={layer.*.query:2}",
            "lora.targets=[layer.?.*.query,'odd, name*',v]",
            "task.metric=accuracy",
        ),
        ("seed=1", "init_seed=0", "optim.lr=0.123456789", "tracker=wandb", "tracker.group=x"),
    ],
)
def test_the_printed_command_makes_the_same_run(overrides: tuple[str, ...], tmp_path: Path) -> None:
    original = plan(config(tmp_path, *overrides))
    stored = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(original.config)))
    printed = settings(stored)
    assert shlex.split(command(stored)) == ["python", "train.py", *printed]
    assert "lora.rank=8" not in printed  # a default
    assert plan(config(tmp_path, "train.steps=null", "train.epochs=2", *printed)).directory == original.directory


def test_outside_a_checkout_the_command_is_loralabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralab.places.HERE", tmp_path)
    assert command(config(tmp_path, "seed=1")).startswith("loralab train model=tiny seed=1 ")


NAMES = ('x${HOME}y \\${a} it\'s "q" \\z #a:b,{c}=é\nl\\ ', "\\${a}", "a b\\", "-dash", "[l]", "null", "1e5", "~%s*?")


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_any_name_of_a_file_survives_the_shell_and_hydra(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mine.csv").write_text(f'"{name.replace(chr(34), 2 * chr(34))}",kind\na,b\nc,d\n')
    file = f"task.files.train={to_override(literal(str(folder / 'mine.csv')))}"
    original = config(tmp_path, "task=local", file, f"task.text=[{to_override(literal(name))}]", "task.label=kind")
    assert original.task.files.train == str(folder / "mine.csv") and original.task.text == [name]
    (tmp_path / "config.yaml").write_text(as_yaml(original))
    stored = stored_config(tmp_path / "config.yaml")
    assert stored == original
    printed = shlex.split(command(stored))[2:]
    assert config(tmp_path, "train.steps=null", "train.epochs=2", *printed).task == original.task
