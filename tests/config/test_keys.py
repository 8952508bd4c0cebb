"""Tests of dotted keys: the error for an unknown key names the nearest one, and types are found."""

from dataclasses import asdict

import pytest

from loralab.config.keys import config_values, keys, no_such_key, type_of
from loralab.config.pretrain import PretrainConfig
from loralab.config.schema import Config


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("lora.rnk", "lora.rank"), ("optm.lr", "optim.lr"), ("rank", "lora.rank"), ("lr", "optim.lr"),
        ("lora.lr", "optim.lr"), ("modl", "model"), ("train.precison", "train.precision"), ("sead", "seed"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_one_that_was_meant(wrong: str, meant: str) -> None:
    line = no_such_key(wrong, Config)
    assert line.startswith(f"{wrong}: no such key; ")
    assert line.endswith(f"; did you mean {meant}?")


def test_an_unknown_key_lists_what_its_node_has() -> None:
    assert "lora has rank, alpha, ratio, " in no_such_key("lora.zzzzzz", Config)
    assert "the configuration has model, task, method, lora, " in no_such_key("zzzzzz.lr2", Config)
    assert "did you mean" not in no_such_key("zzzzzz", Config)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("train.gradient_accumulation_steps", "train.micro_batch_size"),
        ("train.grad_accumulation", "train.micro_batch_size"), ("accumulate_grad_batches", "train.micro_batch_size"),
        ("train.accumulate", "train.micro_batch_size"),
        ("per_device_train_batch_size", "train.micro_batch_size"), ("optim.learning_rate", "optim.lr"),
        ("num_train_epochs", "train.epochs"), ("lora.r", "lora.rank"), ("lora_alpha", "lora.alpha"),
        ("loraplus_lr_ratio", "lora.ratio"), ("lora.lambda", "lora.ratio"), ("lora.lamda", "lora.ratio"),
        ("sweep", "sweeps"), ("study", "sweeps"), ("run_name", "name"),
        ("target_modules", "lora.targets"), ("output_dir", "store"),
    ],
)  # fmt: skip
def test_a_key_of_another_library_has_its_name_here(theirs: str, ours: str) -> None:
    line = no_such_key(theirs, Config)
    assert line.startswith(f"{theirs}: no such key; ") and f"; write {ours}=" in line


def test_a_key_that_a_primary_config_of_the_users_own_lacks_can_be_added() -> None:
    assert no_such_key("tracker", Config).endswith(
        "this configuration has no such key; to add it, write +tracker=VALUE"
    )


def test_a_pretraining_is_not_sent_to_keys_that_it_lacks() -> None:
    assert "write train.epochs=" in no_such_key("num_train_epochs", PretrainConfig)
    assert "write" not in no_such_key("lora_r", PretrainConfig)


def test_types_are_found_by_dotted_key() -> None:
    assert type_of("", Config) is Config
    assert type_of("lora.rank", Config) is int
    assert type_of("task.files.train", Config) == str | None
    assert type_of("lora.rank.foo", Config) is type_of("nothing.at.all", Config) is None
    assert {"model", "model.name", "task.files", "task.files.test", "seed"} <= set(keys(Config))


def test_a_configs_values_are_those_of_asdict_and_copies() -> None:
    config = Config()
    config.lora.targets, config.lora.rank_pattern = ["q", "v"], {"q": 2}
    values = config_values(config)
    assert values == asdict(config)
    values["lora"]["targets"].append("k")
    values["lora"]["rank_pattern"]["k"] = 4
    assert (config.lora.targets, config.lora.rank_pattern) == (["q", "v"], {"q": 2})
