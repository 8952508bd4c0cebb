"""Tests of the schema: ranges, valid combinations, and the line for an invalid one."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from loralab.config.schema import Config, from_hydra
from loralab.errors import UserError
from loralab.runs.plan import plan
from tests.small_runs import config

OUT_OF_RANGE = {
    "model.default_lr=0": "model.default_lr: got 0.0; it must be a number above 0",
    "model.dropout=1": "model.dropout: got 1.0; it must be a number at least 0 and below 1",
    "model.attention=flash": "model.attention: got 'flash'; allowed: auto, eager, sdpa",
    "task.kind=classify": "task.kind: got 'classify'; allowed: classification, regression; did you mean ",
    "task.validation_share=1": "task.validation_share: got 1.0; it must be a number above 0 and below 1",
    "task.train_rows=0": "task.train_rows: got 0; it must be a number at least 1",
    "task.split_seed=-1": "task.split_seed: got -1; it must be a number at least 0",
    "method.name=lroa": "method.name: got 'lroa'; allowed: lora, head, full, bitfit, houlsby, pfeiffer, ",
    "lora.rank=0": "lora.rank: got 0; it must be a number at least 1",
    "lora.alpha=0": "lora.alpha: got 0.0; it must be a number above 0",
    "lora.ratio=-1": "lora.ratio: got -1.0; it must be a number above 0",
    "lora.ratio=inf": "lora.ratio: got inf; it must be a number above 0",
    "lora.targets=[]": "lora.targets: got an empty list; name at least one role (q, k, v, o, mlp, all) or glob",
    "lora.init=C": "lora.init: got 'C'; allowed: A, B",
    "lora.init_dist=normal": "lora.init_dist: got 'normal'; allowed: kaiming, gaussian",
    "lora.scaling=alpha": "lora.scaling: got 'alpha'; allowed: alpha/r, alpha/sqrt_r, constant; did you mean",
    "lora.dropout=1.5": "lora.dropout: got 1.5; it must be a number at least 0 and below 1",
    "lora.bias=some": "lora.bias: got 'some'; allowed: none, lora, all",
    "lora.rank_pattern={v:0}": "lora.rank_pattern.v: got 0; it must be a number at least 1",
    "bottleneck.size=0": "bottleneck.size: got 0; it must be a number at least 1",
    "bottleneck.activation=gleu": "bottleneck.activation: got 'gleu'; allowed: gelu, relu, tanh; did you mean 'gelu'?",
    "prompt.tokens=0": "prompt.tokens: got 0; it must be a number at least 1",
    "prompt.hidden=0": "prompt.hidden: got 0; it must be a number at least 1",
    "intrinsic.dim=0": "intrinsic.dim: got 0; it must be a number at least 1",
    "intrinsic.projection=dense": "intrinsic.projection: got 'dense'; allowed: fastfood, sparse",
    "generate.beams=0": "generate.beams: got 0; it must be a number at least 1",
    "generate.length_penalty=nan": "generate.length_penalty: got nan; it must be a number at least -7",
    "generate.max_new_tokens=0": "generate.max_new_tokens: got 0; it must be a number at least 1",
    "optim.lr=-1": "optim.lr: got -1.0; it must be a number above 0",
    "optim.lr=nan": "optim.lr: got nan; it must be a number above 0",
    "optim.betas=[0.9]": "optim.betas: got [0.9]; it takes two numbers, as [0.9, 0.999]",
    "optim.betas=[0.9,1]": "optim.betas: got 1.0; it must be a number at least 0 and below 1",
    "optim.eps=0": "optim.eps: got 0.0; it must be a number above 0",
    "optim.weight_decay=-0.1": "optim.weight_decay: got -0.1; it must be a number at least 0",
    "optim.schedule=linaer": "optim.schedule: got 'linaer'; allowed: linear, cosine, constant; did you mean 'linear'?",
    "optim.warmup=1.5": "optim.warmup: got 1.5; below 1 it is a share of the steps, else a whole number of steps",
    "optim.head_lr=0": "optim.head_lr: got 0.0; it must be a number above 0",
    "optim.embedding_lr=0": "optim.embedding_lr: got 0.0; it must be a number above 0",
    "optim.clip=0": "optim.clip: got 0.0; it must be a number above 0",
    "optim.groups=role": "optim.groups: got 'role'; allowed: roles, reference; did you mean 'roles'?",
    "train.steps=-1": "train.steps: got -1; it must be a number at least 0",
    "train.batch_size=0": "train.batch_size: got 0; it must be a number at least 1",
    "train.max_length=3": "train.max_length: got 3; it must be a number at least 4",
    "train.eval_every=0": "train.eval_every: got 0; it must be a number above 0",
    "train.eval_every=2.5": "train.eval_every: got 2.5; below 1 it is a share of the steps, else a whole number of st",
    "train.pause_at=0": "train.pause_at: got 0.0; it must be a number above 0",
    "train.pause_at=30.5": "train.pause_at: got 30.5; below 1 it is a share of the steps, else a whole number of steps",
    "train.log_every=0": "train.log_every: got 0; it must be a number at least 1",
    "train.precision=bf61": "train.precision: got 'bf61'; allowed: auto, fp32, bf16, fp16; did you mean 'bf16'?",
    "train.device=cdua": "train.device: got 'cdua'; allowed: auto, cpu, cuda, cuda:N, mps; did you mean 'cuda'?",
    "train.threads=0": "train.threads: got 0; it must be a number at least 1",
    "train.checkpoint_seconds=-1": "train.checkpoint_seconds: got -1.0; it must be a number at least 0",
    "tracker.mode=on": "tracker.mode: got 'on'; allowed: auto, online, offline, disabled",
    "seed=9223372036854775808": "seed: got 9223372036854775808; it must be a number at least 0 and below 922337203685",
    "model.name=": "model.name: got ''; a name has 1 to 100 bytes",
    "store=": "store: got an empty name; it is the folder for runs/ and cache/",
    "lora.rank=1000000000": "lora.rank: got 1000000000; it must be a number at least 1 and at most 65536",
    "lora.rank_pattern={v:1000000000}": "lora.rank_pattern.v: got 1000000000; it must be a number at least 1 and at ",
    "lora.alpha=1e308": "lora.alpha: got 1e+308; it must be a number above 0 and at most 1e+30",
    "lora.ratio=1e308": "lora.ratio: got 1e+308; it must be a number above 0 and at most 1e+30",
    "bottleneck.size=99999999999": "bottleneck.size: got 99999999999; it must be a number at least 1 and at most 16384",
    "prompt.hidden=1000000000": "prompt.hidden: got 1000000000; it must be a number at least 1 and at most 8192",
    "prompt.tokens=1000000000": "prompt.tokens: got 1000000000; it must be a number at least 1 and at most 8192",
    "intrinsic.dim=1000000000": "intrinsic.dim: got 1000000000; it must be a number at least 1 and at most 16777216",
    "generate.beams=1000000": "generate.beams: got 1000000; it must be a number at least 1 and at most 128",
    "generate.length_penalty=1000": "generate.length_penalty: got 1000.0; it must be a number at least -7 and at mos",
    "generate.length_penalty=-1000": "generate.length_penalty: got -1000.0; it must be a number at least -7",
    "generate.max_new_tokens=1000000000": "generate.max_new_tokens: got 1000000000; it must be a number at least 1 a",
    "optim.lr=1e308": "optim.lr: got 1e+308; it must be a number above 0 and at most 1e+30",
    "optim.lr=1e-300": "optim.lr: got 1e-300; the optimizer computes in fp32, from 1.18e-38 to 3.4e+38",
    "optim.eps=1e-300": "optim.eps: got 1e-300; the optimizer computes in fp32, from 1.18e-38 to 3.4e+38",
    "optim.weight_decay=1e308": "optim.weight_decay: got 1e+308; it must be a number at least 0 and at most 1e+30",
    "optim.warmup=1e300": "optim.warmup: got 1e+300; it must be a number at least 0 and at most 1000000000",
    "train.epochs=1e300": "train.epochs: got 1e+300; it must be a number above 0 and at most 1000000",
    "train.steps=1000000000000": "train.steps: got 1000000000000; it must be a number at least 0 and at most 1000000",
    "train.batch_size=1000000000": "train.batch_size: got 1000000000; it must be a number at least 1 and at most 104",
    "train.max_length=1000000000": "train.max_length: got 1000000000; it must be a number at least 4 and at most 104",
    "train.threads=1000000": "train.threads: got 1000000; it must be a number at least 1 and at most 1024",
    "task.train_rows=99999999999999999999": "task.train_rows: got 99999999999999999999; it must be a number at least 1",
    "seed=-1": "seed: got -1; it must be a number at least 0 and below 9223372036854775808",
}


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_value_out_of_range_is_one_line_with_key_value_and_range(override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        config(tmp_path, override)
    assert str(caught.value).startswith(OUT_OF_RANGE[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("optim.lr=1e25", "lora.ratio=1e20"), "optim.lr * lora.ratio: got 1e+45; the optimizer computes in fp32"),
        (("optim.lr=1e-25", "lora.ratio=1e-20"), "optim.lr * lora.ratio: got 1e-45; the optimizer computes in fp32"),
        (("optim.lr=1e30", "optim.betas=[0.9999999999,0.9]"), "optim.lr / (1 - optim.betas[0]): got 1e+40; "),
        (("optim.lr=1e25", "optim.weight_decay=1e20"), "optim.lr * optim.weight_decay: got 1.0"),
        (("optim.head_lr=1e-300",), "optim.head_lr: got 1e-300; the optimizer computes in fp32"),
        (("optim.embedding_lr=1e-300",), "optim.embedding_lr: got 1e-300; the optimizer computes in fp32"),
    ],
)
def test_what_the_optimizer_multiplies_stays_in_the_range_of_fp32(
    overrides: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        config(tmp_path, *overrides)
    assert str(caught.value).startswith(line)


def test_the_ratio_counts_only_where_there_is_a_b(tmp_path: Path) -> None:
    config(tmp_path, "optim.lr=1e25", "lora.ratio=1e20", "method=head")


@pytest.mark.parametrize(
    ("typed", "meant"), [(r"'\n'", "\n"), (r"'\t'", "\t"), (r"' ->\n'", " ->\n"), ("'\n'", "\n"), ("' '", " ")]
)
def test_a_typed_new_line_is_one(typed: str, meant: str, tmp_path: Path) -> None:
    found = config(tmp_path, f"generate.separator={typed}")
    assert found.generate.separator == meant
    assert from_hydra(OmegaConf.structured(found)) == found, "a stored config is read back as it is"


@pytest.mark.parametrize("path", ["A" * 300, "a/" + "A" * 300, "A/" * 3000])
def test_a_folder_that_no_file_system_takes_is_refused(path: str, tmp_path: Path) -> None:
    for key in ("store", "model.path"):
        with pytest.raises(
            UserError, match=rf"^{key}: got .*; a path has at most 3000 bytes, each of its parts at most 255"
        ):
            config(tmp_path, f"{key}={path}")


def test_one_of_epochs_and_steps_is_set_and_steps_win(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.epochs, train\.steps: got null and null; set one of them"):
        config(tmp_path, "train.steps=null", "train.epochs=null")
    both, alone = config(tmp_path, "train.steps=5", "train.epochs=3"), config(tmp_path, "train.steps=5")
    assert plan(both).directory == plan(alone).directory


def test_the_two_shares_leave_rows_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task.validation_share, task.test_share: got 0.5 and 0.5; together"):
        config(tmp_path, "task=local", "task.validation_share=0.5", "task.test_share=0.5")


@pytest.mark.parametrize("override", ["optim.warmup=0", "optim.warmup=0.5", "optim.warmup=1", "optim.warmup=100"])
def test_warmup_is_a_share_or_a_number_of_steps(override: str, tmp_path: Path) -> None:
    config(tmp_path, override)


def test_an_added_key_is_refused_at_any_depth(tmp_path: Path) -> None:
    for key in ("frobnicate", "lora.foo", "task.files.dev"):
        with pytest.raises(UserError, match=rf"^{key}: no such key; "):
            config(tmp_path, f"+{key}=1")


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(Exception, match=r"Missing mandatory value: name"):
        from_hydra(OmegaConf.structured(Config))
