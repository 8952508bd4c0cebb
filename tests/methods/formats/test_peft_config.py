"""Every field of PEFT's LoraConfig: applied as PEFT does, known to change nothing, or refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.errors import UserError
from loralab.inspect.updates import read_updates
from loralab.methods.formats.peft_config import CONFIG, LORA, read_config
from loralab.methods.formats.peft_lora import attach_peft
from loralab.serving.adapters import read_adapter
from loralab.serving.mixed_batch import AdapterBank
from loralab.serving.switch import Switch
from tests.adapted import shake
from tests.families import FAMILIES, example_batch

pytestmark = [
    # PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PEFT's notes on most of these settings
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match:RuntimeWarning"),
]

QV = ["query", "value"]
ATTENTION = r"(?:.*?(?:encoder).*?(?:attention|mlp).*?(?:query|key|value).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:q_proj))"
SUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "r": ("bert", {"target_modules": QV, "r": 3, "lora_alpha": 7}),
    "lora_alpha": ("bert", {"target_modules": QV, "lora_alpha": 2.5}),
    "alpha below 0": ("bert", {"target_modules": QV, "lora_alpha": -3}),
    "rank_pattern": ("bert", {"target_modules": QV, "rank_pattern": {r"layer\.(0|7).*": 2, "value": 5, "query": 6}}),
    "alpha_pattern": ("bert", {"target_modules": QV, "alpha_pattern": {"0.attention.self.query": 1, "(.*)*": 3}}),
    "alpha_pattern whole": ("bert", {"target_modules": QV, "alpha_pattern": {"^bert.encoder.*": 1, "^encoder.*": 9}}),
    "use_rslora": ("bert", {"target_modules": QV, "use_rslora": True, "rank_pattern": {"value": 5}}),
    "use_dora": ("bert", {"target_modules": QV, "use_dora": True}),
    "use_dora of a Conv1D": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "lora_dropout": ("bert", {"target_modules": QV, "lora_dropout": 0.5}),
    "bias all": ("bert", {"target_modules": QV, "bias": "all"}),
    "bias lora_only": ("bert", {"target_modules": QV, "bias": "lora_only"}),
    "target_modules": ("bert", {"target_modules": ATTENTION}),
    "all-linear": ("bert", {"target_modules": "all-linear"}),
    "exclude_modules": ("bert", {"target_modules": QV, "exclude_modules": ["1.attention.self.value"]}),
    "exclude_modules one": ("bert", {"target_modules": QV, "exclude_modules": r".*\.1\..*query"}),
    "layers_to_transform": ("bert", {"target_modules": QV, "layers_to_transform": 1}),
    "layers_to_transform list": ("bert", {"target_modules": QV, "layers_to_transform": [0], "layers_pattern": "layer"}),
    "modules_to_save": ("bert", {"target_modules": QV, "modules_to_save": ["LayerNorm", "classifier"]}),
    "fan_in_fan_out": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "an embedding": ("bert", {"target_modules": ["query", "word_embeddings"]}),
    "a tied table": ("t5", {"target_modules": ["q"], "modules_to_save": ["shared"]}),
    **{
        f"init {init}": ("bert", {"target_modules": QV, "r": 4, "init_lora_weights": init})
        for init in (True, False, "gaussian", "eva", "orthogonal", "mica")
    },
}
NOT_SERVED = {"use_dora": "DoRA", "use_dora of a Conv1D": "DoRA"}
NOT_MIXED = {
    "modules_to_save": "is trained whole",
    "an embedding": "is an embedding",
    "a tied table": "is trained whole",
}

REFUSED: dict[str, Any] = {
    "megatron_config": {"tensor_model_parallel_size": 2},
    "trainable_token_indices": [1, 2],
    "velora_config": {"num_groups": 4},
    "alora_invocation_tokens": [7],
    "use_qalora": True,
    "monteclora_config": {"num_samples": 2},
    "layer_replication": [[0, 1]],
    "lora_bias": True,
    "target_parameters": ["weight"],
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 1},
    "kasa_config": {"beta": 0.1},
    "ensure_weight_tying": True,
    "a_field_of_tomorrow": 0.5,
    "another": "on",
    "a count": 0,
    "empty\ntext": "",
}


def made(family: str, directory: Path, **settings: Any) -> Any:
    """PEFT's model with a random adapter, saved in `directory`."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(FAMILIES[family](), LoraConfig(**{"task_type": "SEQ_CLS", **settings}))
    shake(model)
    model.save_pretrained(directory)
    return model


def change(directory: Path, **fields: Any) -> None:
    path = directory / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def batch(family: str) -> dict[str, Tensor]:
    return {key: value for key, value in example_batch(FAMILIES[family]()).items() if key != "labels"}


def logits(model: Any, family: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**batch(family)).logits
    return found


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_field_that_is_read_gives_pefts_logits_and_updates(name: str, tmp_path: Path) -> None:
    """From `from_pretrained`, as PEFT reads the field again: attached, switched to, in a mixed batch, and inspected."""
    from peft import PeftModel

    family, settings = SUPPORTED[name]
    made(family, tmp_path, **settings)
    theirs: Any = PeftModel.from_pretrained(FAMILIES[family](), str(tmp_path), is_trainable=True)
    want = logits(theirs, family)
    assert (want - logits(FAMILIES[family](), family)).abs().max() > 1e-2, "the adapter does something"

    ours = FAMILIES[family]()
    attach_peft(ours, tmp_path)
    torch.testing.assert_close(logits(ours, family), want, rtol=0, atol=1e-5)
    if name != "init mica":  # PEFT freezes its B
        assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == theirs.get_nb_trainable_parameters()[0]
    if name in NOT_SERVED:
        with pytest.raises(UserError, match=NOT_SERVED[name]):
            read_adapter(tmp_path)
        with pytest.raises(UserError, match=NOT_SERVED[name]):
            read_updates(tmp_path)
        return

    bare = FAMILIES[family]()
    Switch(bare, {"task": read_adapter(tmp_path)}).use("task")
    torch.testing.assert_close(logits(bare, family), want, rtol=0, atol=1e-5)
    bare = FAMILIES[family]()
    if name in NOT_MIXED:
        with pytest.raises(UserError, match=NOT_MIXED[name]):
            AdapterBank(bare, {"task": read_adapter(tmp_path)})
    else:
        mixed = AdapterBank(bare, {"task": read_adapter(tmp_path)})(["task", "task"], **batch(family))
        torch.testing.assert_close(mixed, want, rtol=0, atol=1e-5)

    updates = read_updates(tmp_path)
    layers = {n: m for n, m in theirs.base_model.model.named_modules() if hasattr(m, "get_delta_weight")}
    assert updates.keys() == layers.keys()
    for at, update in updates.items():
        norm = layers[at].get_delta_weight("default").norm().item()
        assert float((update.svd().S ** 2).sum() ** 0.5) == pytest.approx(norm, rel=1e-5)


def test_every_field_of_pefts_is_known_and_tried() -> None:
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields - LORA.keys() - REFUSED.keys() == set(), "a field of this PEFT: read it, or refuse it"
    assert REFUSED.keys() & LORA.keys() == set()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("plain")
    made("bert", directory, target_modules=QV)
    found: dict[str, Any] = json.loads((directory / CONFIG).read_text())
    return found


def refused(directory: Path, config: dict[str, Any], message: str) -> None:
    (directory / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as error:
        read_config(directory, {"LORA": LORA}, what="only LORA adapters can be loaded")
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{directory}: ")


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_is_not_read_is_refused_by_name(field: str, plain: dict[str, Any], tmp_path: Path) -> None:
    name = field if field.isidentifier() else json.dumps(field).replace("\\", r"\\")
    refused(tmp_path, plain | {field: REFUSED[field]}, rf"its adapter_config\.json: {name}: got .*, which is not supp")


@pytest.mark.parametrize("empty", [None, False, {}, []], ids=str)
def test_a_field_that_is_not_read_may_be_empty(empty: Any, plain: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(plain | dict.fromkeys(REFUSED, empty)))
    read_config(tmp_path, {"LORA": LORA}, what="")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "tomorrow", 1, []])
def test_a_start_that_changes_the_base_is_refused(init: Any, plain: dict[str, Any], tmp_path: Path) -> None:
    line = r"init_lora_weights: got .*; allowed: true, false, .*path_initial_model_for_weight_conversion"
    refused(tmp_path, plain | {"init_lora_weights": init}, line)


@pytest.mark.parametrize(("family", "init"), [("bert", "pissa"), ("bert", "olora"), ("gpt2", "pissa")])
def test_what_peft_converts_to_plain_lora_is_read(family: str, init: str, tmp_path: Path) -> None:
    """The nearest fix of the line that refuses it: PEFT's difference to the start (without a head)."""
    from peft import LoraConfig, PeftModel, get_peft_model

    target = {"bert": "query", "gpt2": "c_attn"}[family]
    settings: Any = {"r": 4, "target_modules": [target], "init_lora_weights": init, "fan_in_fan_out": family == "gpt2"}
    model: Any = get_peft_model(FAMILIES[family](), LoraConfig(**settings))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    shake(model)
    want = logits(model, family)
    model.peft_config["default"].init_lora_weights = init
    model.save_pretrained(tmp_path / "end", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    theirs = PeftModel.from_pretrained(FAMILIES[family](), str(tmp_path / "end"))
    ours = FAMILIES[family]()
    attach_peft(ours, tmp_path / "end")
    torch.testing.assert_close(logits(ours, family), logits(theirs, family), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(ours, family), want, rtol=0, atol=1e-4)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "r 0": ({"r": 0}, "r: got 0; allowed: a whole number from 1"),
    "r -1": ({"r": -1}, "r: got -1"),
    "r 4.0": ({"r": 4.0}, "r: got 4.0"),
    "r text": ({"r": "8"}, 'r: got "8"'),
    "r true": ({"r": True}, "r: got true"),
    "no r": ({"r": None}, "has no r; allowed: a whole number"),
    "no alpha": ({"lora_alpha": None}, "has no lora_alpha; allowed: a number other than 0, up to 1e30"),
    "alpha NaN": ({"lora_alpha": float("nan")}, "lora_alpha: got NaN; allowed: a number"),
    "alpha inf": ({"lora_alpha": float("inf")}, "lora_alpha: got Infinity"),
    "alpha huge": ({"lora_alpha": 10**400}, "lora_alpha: got 1000000000.*; allowed: a number"),
    "alpha 0": ({"lora_alpha": 0}, "lora_alpha: got 0; allowed: a number other than 0"),
    "alpha text": ({"lora_alpha": "16"}, 'lora_alpha: got "16"'),
    "nested": (
        {"alpha_pattern": {"query": {"value": 2}}},
        r'alpha_pattern: got {"query": {"value": 2}}; allowed: a number',
    ),
    "list": ({"rank_pattern": [["query", 2]]}, "rank_pattern: got"),
    "rank 0": ({"rank_pattern": {"query": 0}}, "rank_pattern: got"),
    "rslora": ({"use_rslora": "no"}, 'use_rslora: got "no"; allowed: true or false'),
    "bias": ({"bias": "some"}, 'bias: got "some"; allowed: none, all or lora_only'),
    "dropout": ({"lora_dropout": 1.5}, r"lora_dropout: got 1.5; allowed: a number in \[0, 1\]"),
    "no targets": ({"target_modules": None}, "has no target_modules"),
    "targets": ({"target_modules": [3]}, r"target_modules: got \[3\]"),
    "layers": ({"layers_to_transform": ["1"]}, "layers_to_transform: got"),
    "layers_pattern": ({"layers_pattern": ["(a+)+$"]}, "layers_pattern: got"),
    "modules_to_save": ({"modules_to_save": ["(a+)+$"]}, r"modules_to_save: got .*; allowed: a list of names"),
    "base": ({"base_model_name_or_path": ["x"]}, r'base_model_name_or_path: got \["x"\]; allowed: a text or null'),
    "type": ({"peft_type": "IA3"}, "a IA3 adapter; only LORA adapters can be loaded"),
    "type list": ({"peft_type": ["LORA"]}, r'a \["LORA"\] adapter; only LORA'),
    "no type": ({"peft_type": None}, r"is damaged \(no peft_type\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_is_not_allowed_is_refused_by_name(name: str, plain: dict[str, Any], tmp_path: Path) -> None:
    fields, message = WRONG[name]
    refused(tmp_path, plain | fields, message)


def test_a_config_of_peft_02_is_read(tmp_path: Path) -> None:
    old: dict[str, Any] = {"base_model_name_or_path": "x", "bias": "none", "enable_lora": None, "fan_in_fan_out": False}
    old |= {"inference_mode": True, "lora_alpha": 16, "lora_dropout": 0.05, "merge_weights": True, "r": 8}
    old |= {"modules_to_save": None, "peft_type": "LORA", "target_modules": QV, "task_type": "CAUSAL_LM"}
    (tmp_path / CONFIG).write_text(json.dumps(old))
    config = read_config(tmp_path, {"LORA": LORA}, what="")
    assert (config.rank("h.0.query"), config.scaling("h.0.query", 8)) == (8, 2.0)
    names = ("query", "h.query", "h.queries", "query.h")
    assert [name for name in names if config.adapts(name)] == ["query", "h.query"]


@pytest.mark.parametrize("expression", ["(a+)+$", "(.*)*x", "(.*.*.*.*.*.*.*.*.*.*)*z", "(?:a?){60}a{60}", "(a|a)*b"])
@pytest.mark.parametrize("field", ["alpha_pattern", "rank_pattern", "target_modules", "exclude_modules"])
def test_no_expression_can_hang(expression: str, field: str, plain: dict[str, Any], tmp_path: Path) -> None:
    value = {expression: 8} if field.endswith("_pattern") else expression
    (tmp_path / CONFIG).write_text(json.dumps(plain | {field: value}))
    config = read_config(tmp_path, {"LORA": LORA}, what="")
    for name in ("bert." + "a" * 200 + "!", "a" * 500):
        assert config.rank(name) == 8 and config.scaling(name, 8) > 0 and config.adapts(name) in (True, False)


@pytest.mark.parametrize(
    ("field", "expression", "message"),
    [
        ("alpha_pattern", "(", "is no regular expression"),
        ("rank_pattern", "((a{1000}){1000})", "a regular expression of more than 5000 states; name the modules one by"),
        ("target_modules", r"(a)\1", "a regular expression with groupref, which is not matched here"),
        ("exclude_modules", "a" * 3000, "a regular expression of 3000 characters; the longest has 2000"),
    ],
)
def test_an_expression_that_is_not_matched_is_refused_by_name(
    field: str, expression: str, message: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    value = {expression: 8} if field.endswith("_pattern") else expression
    (tmp_path / CONFIG).write_text(json.dumps(plain | {field: value}))
    config = read_config(tmp_path, {"LORA": LORA}, what="")
    with pytest.raises(UserError, match=rf"^{tmp_path}: its adapter_config.json: {field}: .*{message}"):
        assert config.rank("x") and config.scaling("x", 1) and config.adapts("x")
