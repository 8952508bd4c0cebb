"""An exported checkpoint has the base's config and generation settings, but for what training changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.backbones.load import Backbone, load, load_generator
from loralab.backbones.source import Source, locate
from loralab.methods.formats.peft_lora import save_peft
from loralab.methods.formats.plain import export_merged, save_model
from loralab.methods.lora import attach
from tests.adapted import LORA, shake
from tests.families import save_checkpoint

SMALL: dict[str, Any] = {"vocab_size": 100, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
WIDE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BASES: dict[str, dict[str, Any]] = {
    "bert": WIDE | {"max_position_embeddings": 64, "hidden_dropout_prob": 0.15},
    "roberta": WIDE | {"max_position_embeddings": 64, "classifier_dropout": 0.3},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.2, "pad_token_id": None},
    "llama": WIDE | {"max_position_embeddings": 64, "num_key_value_heads": 2, "attention_dropout": 0.05},
    "t5": {
        "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1,
        "dropout_rate": 0.12,
    },
    "bart": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "encoder_layerdrop": 0.1,
    },
}  # fmt: skip
TARGETS = {
    "gpt2": ["*c_attn"], "t5": ["*.q", "*.v"], "bert": ["*query", "*value"], "roberta": ["*query", "*value"],
    "llama": ["*q_proj", "*v_proj"], "bart": ["*q_proj", "*v_proj"],
}  # fmt: skip
GENERATION = {
    "eos_token_id": [2, 57], "pad_token_id": 1, "repetition_penalty": 1.3, "do_sample": True, "temperature": 0.7,
    "forced_eos_token_id": 2, "max_new_tokens": 5,
}  # fmt: skip
OF_ANY = {"architectures", "dtype", "transformers_version"}
OF_CLASSIFIERS = OF_ANY | {"id2label", "label2id", "problem_type", "pad_token_id"}
SEQ2SEQ = ("t5", "bart", "t5gemma")
PART = {
    **WIDE, **SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 12,
}  # fmt: skip
BASES["t5gemma"] = {"encoder": PART, "decoder": PART, "decoder_start_token_id": 0}
TARGETS["t5gemma"] = ["*q_proj", "*v_proj"]
QUICK = (("bert", False), ("gpt2", True), ("t5", True))  # of the gate
OTHERS = (*((family, False) for family in BASES if family not in ("bert", "t5gemma")), ("llama", True))
FORMS = [*QUICK, *(pytest.param(*form, marks=pytest.mark.slow) for form in OTHERS)]


def base_of(family: str, directory: Path, *, generates: bool, **settings: Any) -> Path:
    """A checkpoint of random weights; one that generates has its output embeddings."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(family, **SMALL | BASES[family] | settings)
    kind = (AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM) if generates else AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = kind.from_config(config)
    return save_checkpoint(model, directory)


def source_of(directory: Path) -> Source:
    return locate("base", package=None, hub=None, revision=None, path=str(directory), cache=None)


def adapted(directory: Path, *, generates: bool, targets: list[str] | None) -> Backbone:
    """The checkpoint as a run trains it, with an adapter far from its start; targets=None: without one."""
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "eager", "dtype": torch.float32, "device": "cpu"}
    source = source_of(directory)
    if generates:
        backbone = load_generator(source, **settings)
    else:
        backbone = load(source, labels=2, regression=False, seed=0, class_names=("no", "yes"), **settings)
    if targets is not None:
        attach(backbone.model, backbone.maps, head=backbone.head, **{**LORA, "targets": targets})
    shake(backbone.model)
    return backbone


def merged(backbone: Backbone, directory: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    export_merged(backbone.model, backbone.tokenizer, directory, dtype=dtype, base=backbone.source)
    return directory


def config_in(directory: Path, name: str = "config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / name).read_text())
    return found


def auto(directory: Path, *, generates: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    seq2seq = config_in(directory)["model_type"] in SEQ2SEQ
    generator = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    kind: Any = generator if generates else AutoModelForSequenceClassification
    return kind.from_pretrained(directory, attn_implementation="eager").eval()


def logits(model: Any) -> Tensor:
    """Of one short text, in fp64: the random models make 1e-5 of a rounding in fp32."""
    ids = torch.tensor([[0, 40, 41, 42, 43, 2]])
    more = {"decoder_input_ids": ids[:, :3]} if model.config.is_encoder_decoder and model.can_generate() else {}
    with torch.no_grad():
        found: Tensor = model.double().eval()(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits
    return found


@pytest.mark.parametrize(("family", "generates"), FORMS)
@pytest.mark.parametrize("whole", [False, True], ids=["merged", "full"])
def test_every_key_of_the_bases_config_is_kept_but_for_the_named_ones(
    family: str, generates: bool, whole: bool, tmp_path: Path
) -> None:
    before = config_in(base_of(family, tmp_path / "base", generates=generates))
    backbone = adapted(tmp_path / "base", generates=generates, targets=None if whole else TARGETS[family])
    if whole:
        save_model(backbone.model, tmp_path / "out", backbone.source)
    else:
        merged(backbone, tmp_path / "out")
    after = config_in(tmp_path / "out")
    allowed = OF_ANY if generates else OF_CLASSIFIERS
    assert {key for key in before | after if before.get(key) != after.get(key)} <= allowed
    if not generates:
        assert after["id2label"] == {"0": "no", "1": "yes"} and after["pad_token_id"] == 1
        assert (tmp_path / "out" / "generation_config.json").exists() is False


@pytest.mark.parametrize("family", ["gpt2", pytest.param("llama", marks=pytest.mark.slow), "t5"])
@pytest.mark.parametrize("written", [True, False], ids=["in a file", "derived"])
def test_the_bases_generation_settings_are_kept(family: str, written: bool, tmp_path: Path) -> None:
    base = base_of(family, tmp_path / "base", generates=True)
    (base / "generation_config.json").unlink()
    if written:
        (base / "generation_config.json").write_text(json.dumps(GENERATION))
    out = merged(adapted(base, generates=True, targets=TARGETS[family]), tmp_path / "out")
    assert (out / "generation_config.json").exists() == written
    found = [auto(folder, generates=True).generation_config.to_dict() for folder in (base, out)]
    assert found[0] == found[1]
    assert not written or found[1]["eos_token_id"] == [2, 57]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT and transformers
@pytest.mark.parametrize(("family", "generates"), FORMS)
def test_peft_on_the_base_and_the_merged_checkpoint_agree(family: str, generates: bool, tmp_path: Path) -> None:
    """On logits, and on every greedy continuation with the base's own settings."""
    from peft import PeftModel

    base = base_of(family, tmp_path / "base", generates=generates)
    backbone = adapted(base, generates=generates, targets=TARGETS[family])
    save_peft(backbone.model, tmp_path / "adapter", head=backbone.head, base_model=str(base))
    out = auto(merged(backbone, tmp_path / "out"), generates=generates)
    kind: Any = {} if generates else {"id2label": {0: "no", 1: "yes"}, "pad_token_id": 1}
    plain = auto(base, generates=True) if generates else type(out).from_pretrained(base, **kind)
    theirs = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    assert torch.equal(logits(theirs).argmax(-1), logits(out).argmax(-1))
    torch.testing.assert_close(logits(theirs), logits(out), rtol=0, atol=1e-5)
    if generates:
        ids = torch.tensor([[40, 41, 42, 43]])
        made = [
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
            for model in (theirs, out)
        ]
        assert torch.equal(*made)


@pytest.mark.parametrize(
    ("family", "table"),
    [
        ("gpt2", "*wte"),
        ("t5", "shared"),
        ("bart", "*decoder.embed_tokens"),
        pytest.param("llama", "lm_head", marks=pytest.mark.slow),
        pytest.param("t5", "decoder.embed_tokens", marks=pytest.mark.slow),
        pytest.param("bart", "lm_head", marks=pytest.mark.slow),
    ],
)
def test_embeddings_that_training_made_unequal_are_untied(family: str, table: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = base_of(family, tmp_path / "base", generates=True, tie_word_embeddings=True)
    kept = merged(adapted(base, generates=True, targets=TARGETS[family]), tmp_path / "kept")
    assert config_in(kept)["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(kept / "model.safetensors")
    backbone = adapted(base, generates=True, targets=[table])
    out = merged(backbone, tmp_path / "out")
    assert config_in(out)["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file(out / "model.safetensors")
    torch.testing.assert_close(logits(auto(out, generates=True)), logits(backbone.model), rtol=0, atol=1e-5)


def test_embeddings_stay_tied_where_the_encoder_has_a_table_of_its_own(tmp_path: Path) -> None:
    base = base_of("t5gemma", tmp_path / "base", generates=True)
    backbone = adapted(base, generates=True, targets=TARGETS["t5gemma"])
    out = merged(backbone, tmp_path / "out")
    assert config_in(out)["tie_word_embeddings"] is True
    torch.testing.assert_close(logits(auto(out, generates=True)), logits(backbone.model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True], ids=["merged", "full"])
def test_of_tables_that_are_tied_but_for_one_each_is_in_the_file(whole: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = base_of("bart", tmp_path / "base", generates=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.shared.weight"] * 2
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    backbone = adapted(base, generates=True, targets=None if whole else TARGETS["bart"])
    if whole:
        save_model(backbone.model, tmp_path / "out", backbone.source)
    else:
        merged(backbone, tmp_path / "out")
    assert config_in(tmp_path / "out")["tie_word_embeddings"] is False
    found = auto(tmp_path / "out", generates=True)
    torch.testing.assert_close(logits(found), logits(backbone.model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("said", [True, False])
def test_embeddings_that_are_unequal_in_the_base_stay_so(said: bool, tmp_path: Path) -> None:
    """Also where the base's config says that they are tied."""
    base = base_of("llama", tmp_path / "base", generates=True, tie_word_embeddings=False)
    config = config_in(base)
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": said}))
    backbone = adapted(base, generates=True, targets=TARGETS["llama"])
    out = merged(backbone, tmp_path / "out")
    assert config_in(out)["tie_word_embeddings"] is False
    torch.testing.assert_close(logits(auto(out, generates=True)), logits(backbone.model), rtol=0, atol=1e-5)
    save_model(adapted(base, generates=True, targets=None).model, tmp_path / "full", source_of(base))
    assert config_in(tmp_path / "full")["tie_word_embeddings"] is False


def test_the_precision_has_the_bases_name_and_code_is_left_behind(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base", generates=False)
    config = config_in(base)
    del config["dtype"]
    config |= {"torch_dtype": "float16", "num_labels": 5, "auto_map": {"AutoModel": "code.Model"}, "mine": [1]}
    (base / "config.json").write_text(json.dumps(config))
    out = merged(adapted(base, generates=False, targets=TARGETS["bert"]), tmp_path / "out", dtype=torch.bfloat16)
    found = config_in(out)
    assert (found["torch_dtype"], found["dtype"]) == ("bfloat16", "bfloat16")
    assert (found["num_labels"], found["mine"]) == (2, [1]) and "auto_map" not in found
    model = auto(out, generates=False)
    assert (model.config.num_labels, model.dtype) == (2, torch.bfloat16)


def test_labels_that_have_transformers_own_names_replace_the_bases(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base", generates=False, id2label={0: "a", 1: "b", 2: "c"})
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "eager", "dtype": torch.float32, "device": "cpu"}
    names = ("LABEL_0", "LABEL_1")
    backbone = load(source_of(base), labels=2, regression=False, seed=0, class_names=names, **settings)
    found = auto(merged(backbone, tmp_path / "out"), generates=False).config
    assert found.id2label == dict(enumerate(names)) and found.label2id == {"LABEL_0": 0, "LABEL_1": 1}


@pytest.mark.parametrize("side", ["left", None])
def test_the_tokenizer_pads_on_the_side_of_its_base(side: str | None, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = base_of("gpt2", tmp_path / "base", generates=True)
    settings = config_in(base, "tokenizer_config.json")
    settings.pop("padding_side", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings | ({"padding_side": side} if side else {})))
    backbone = adapted(base, generates=True, targets=TARGETS["gpt2"])
    assert backbone.tokenizer.padding_side == "right"
    out = merged(backbone, tmp_path / "out")
    ids = [AutoTokenizer.from_pretrained(at)(["w3 w4", "w3"], padding=True)["input_ids"] for at in (base, out)]
    assert ids[0] == ids[1] and (ids[1][1][0] == 1) is (side == "left")
