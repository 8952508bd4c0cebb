"""Laws of conf/pretrain.yaml: every key has a type and a visible default, and a value out of range is one line."""

from dataclasses import is_dataclass

import pytest
from hydra import compose
from omegaconf import OmegaConf

from loralab.config.compose import configs
from loralab.config.keys import keys, type_of
from loralab.config.pretrain import PretrainConfig, from_hydra
from loralab.errors import UserError
from tests.small_runs import CONF


def config(*overrides: str) -> PretrainConfig:
    with configs():
        return from_hydra(compose("pretrain", list(overrides)))


def test_every_key_of_the_schema_stands_in_the_yaml_with_its_value() -> None:
    written = OmegaConf.load(CONF / "pretrain.yaml")
    schema = OmegaConf.structured(PretrainConfig)
    for key in keys(PretrainConfig):
        node, _, name = key.rpartition(".")
        if is_dataclass(type_of(key, PretrainConfig)) or key.startswith("tracker"):
            continue
        assert OmegaConf.is_missing(OmegaConf.select(schema, node) if node else schema, name), key
        assert name in (OmegaConf.select(written, node) if node else written), key


def test_the_learning_rate_falls_as_one_over_the_width() -> None:
    rates = [config(f"model.width={width}").lr for width in (64, 128, 512)]
    assert rates[0] == pytest.approx(2 * rates[1]) == pytest.approx(8 * rates[2])


def test_the_name_is_the_widths_unless_given() -> None:
    assert config("model.width=256").name == "width_256"
    assert config("model.width=256", "name=mine").name == "mine"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.width=100", "model.width: got 100; it must be a multiple of 32"),
        ("model.width=16", "model.width: got 16; it must be a number at least 32"),
        ("corpus.masked=0", "corpus.masked: got 0"),
        ("corpus.vocabulary=100", "corpus.vocabulary: got 100"),
        ("train.precision=fp16", "train.precision: got 'fp16'; allowed: auto, fp32, bf16"),
        ("train.device=gpu", "train.device: got 'gpu'"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("train.epochs=null", "train.epochs, train.steps: got null and null"),
        ("name=a/b", "name: got 'a/b'"),
        ("model.width=1048576", "model.width: got 1048576; it must be a number at least 32 and at most 65536"),
        ("model.layers=1000000", "model.layers: got 1000000; it must be a number at least 1 and at most 1000"),
        (
            "optim.lr_times_width=1e300",
            "optim.lr_times_width: got 1e+300; it must be a number above 0 and at most 1",
        ),
        ("optim.lr_times_width=1e-40", "optim.lr_times_width / model.width: got 7.8125e-43; the optimizer computes in"),
        ("optim=${train}", "optim.epochs: no such key; "),
        ("corpus=${seed}", "corpus: got 0; it must be set by its keys, as corpus.KEY=VALUE"),
        ("+optim.lr=1", "optim.lr: no such key; optim has lr_times_width"),
    ],
)
def test_a_value_out_of_range_is_one_line(override: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        config(override)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [".", "..", "...", "a/b", "/a", "../a", "a\\b", "", " ", "-a", ".a", "a.", "con", "NUL.x", "a" * 201, "a\nb"],
)
def test_a_name_is_that_of_one_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"^name: got .*; it names a folder: letters, digits, _ - and \."):
        config(f"name='{name}'")


@pytest.mark.parametrize("name", ["width_64", "a.b", "a-b", "0", "console", "a" * 200])
def test_a_plain_name_is_taken(name: str) -> None:
    assert config(f"name='{name}'").name == name
