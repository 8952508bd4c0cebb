"""Tests of a config's command: it reproduces the run, and omits defaults."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from loralab.config.command import command, settings
from loralab.runs.plan import plan
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


def test_without_its_checkout_every_setting_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralab.config.command.CONF", tmp_path / "nowhere")
    printed = settings(OmegaConf.structured(config(tmp_path)))
    assert "lora.rank=8" in printed and "lora.targets=[q,v]" in printed
