"""Loading generators: frozen, tied as saved, with the pretrained output embeddings; other families are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from loralab.backbones.load import Backbone, load_generator
from loralab.backbones.padding import apart_by_padding
from loralab.backbones.source import Source
from loralab.errors import UserError
from tests.backbones.checkpoints import find
from tests.families import FAMILIES, VOCABULARY, save_checkpoint
from tests.generators import GENERATORS, pairs

families = pytest.mark.parametrize("family", GENERATORS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """A checkpoint of every family that generates."""
    folder = tmp_path_factory.mktemp("generators")
    return {name: find(save_checkpoint(make(), folder / name), folder) for name, make in GENERATORS.items()}


def take(source: Source, **changes: Any) -> Backbone:
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "auto", "dtype": torch.float32, "device": "cpu"}
    return load_generator(source, **(settings | changes))


def logits(model: Any) -> torch.Tensor:
    batch = pairs(3, seq2seq=model.config.is_encoder_decoder)(torch.arange(3).numpy())
    del batch["labels"]
    with torch.no_grad():
        found: torch.Tensor = model(**batch).logits
    return found


@families
def test_it_is_the_checkpoint_frozen_with_no_head(family: str, saved: dict[str, Source]) -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    backbone = take(saved[family])
    assert torch.equal(before, torch.get_rng_state()), "the caller's generator was touched"
    original = dict(GENERATORS[family]().named_parameters())
    assert set(original) == {name for name, _ in backbone.model.named_parameters()}
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, original[name]), name
        assert not parameter.requires_grad
    assert (backbone.head, backbone.seq2seq, backbone.model.training) == ((), family == "t5", False)
    assert {m.role for m in backbone.maps} == {"q", "k", "v", "o", "mlp"}
    torch.testing.assert_close(logits(backbone.model), logits(GENERATORS[family]()))


@families
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_are_tied_as_the_checkpoint_has_them(family: str, tied: bool, tmp_path: Path) -> None:
    of_family: Any = type(GENERATORS[family]())
    config = GENERATORS[family]().config
    config.tie_word_embeddings = tied
    model = take(find(save_checkpoint(of_family(config), tmp_path / family), tmp_path)).model
    same = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert same is tied


def test_the_roles_of_an_encoder_decoder_are_those_of_its_cross_attention_too(saved: dict[str, Source]) -> None:
    maps = take(saved["t5"]).maps
    for role in "qkvo":
        places = {(m.name.split(".")[0], m.name.split(".")[-2]) for m in maps if m.role == role}
        assert places == {("encoder", "SelfAttention"), ("decoder", "SelfAttention"), ("decoder", "EncDecAttention")}


@families
def test_dropout_reaches_it_and_zero_is_deterministic(family: str, saved: dict[str, Source]) -> None:
    still, shaken = take(saved[family]).model.train(), take(saved[family], dropout=0.25).model.train()
    assert torch.equal(logits(still), logits(still))
    assert not torch.equal(logits(shaken), logits(shaken))


def test_dropout_zero_holds_in_the_parts_of_a_composite_model(tmp_path: Path) -> None:
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": VOCABULARY,
    }
    parts = [BertConfig(**sizes, intermediate_size=48, hidden_dropout_prob=0.3) for _ in range(2)]
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*parts, decoder_start_token_id=0)
    source = find(save_checkpoint(EncoderDecoderModel(config=config), tmp_path / "both"), tmp_path)
    for dropout in (0.0, 0.25):
        model = take(source, dropout=dropout).model
        assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} == {dropout}


@families
def test_half_precision_and_sdpa_give_nearly_the_same(family: str, saved: dict[str, Source]) -> None:
    exact = logits(take(saved[family]).model)
    half = take(saved[family], dtype=torch.bfloat16).model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert (logits(half).float() - exact).std() < 0.05 * exact.std()
    sdpa = take(saved[family], attention="sdpa").model
    assert sdpa.config._attn_implementation == "sdpa"
    torch.testing.assert_close(logits(sdpa), exact, rtol=1e-4, atol=1e-4)


def test_how_a_checkpoint_would_generate_is_dropped(tmp_path: Path) -> None:
    folder = save_checkpoint(GENERATORS["llama"](), tmp_path / "llama")
    GenerationConfig(do_sample=True, temperature=0.3, repetition_penalty=4.0, eos_token_id=9).save_pretrained(folder)
    settings: Any = take(find(folder, tmp_path)).model.generation_config
    assert (settings.eos_token_id, settings.pad_token_id) == (2, 1)
    assert not settings.do_sample and settings.repetition_penalty in (None, 1.0)


def test_a_decoder_whose_config_says_it_has_an_encoder_generates_as_a_decoder(tmp_path: Path) -> None:
    folder = save_checkpoint(GENERATORS["llama"](), tmp_path / "llama")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"is_encoder_decoder": True}))
    model: Any = take(find(folder, tmp_path)).model
    assert model.generate(input_ids=torch.tensor([[0, 9, 7]]), max_new_tokens=2).shape[1] > 3


def test_a_model_that_cannot_generate_with_a_cache_works_or_is_one_line(tmp_path: Path) -> None:
    """transformers 5.24 makes T5's cache with as many layers as the encoder has; other releases may do without."""
    model: Any = type(GENERATORS["t5"]())
    config = GENERATORS["t5"]().config
    config.num_layers, config.num_decoder_layers = 1, 2
    source = find(save_checkpoint(model(config), tmp_path / "t5"), tmp_path)
    said = ""
    try:
        take(source).model.generate(input_ids=torch.tensor([[9, 2]]), max_new_tokens=2, use_cache=True)
    except UserError as error:
        said = str(error)
    assert said == "" or "does not work on a short text: IndexError" in said


@pytest.mark.parametrize("family", GENERATORS)
def test_outputs_do_not_depend_on_the_padding(family: str, saved: dict[str, Source]) -> None:
    backbone = take(saved[family])
    assert (backbone.notes, backbone.unfit) == ((), None)
    assert apart_by_padding(backbone.model) < 1e-5


@pytest.mark.parametrize("family", ["bert", "deberta_v2"])
def test_an_encoder_does_not_generate(family: str, tmp_path: Path) -> None:
    source = find(save_checkpoint(FAMILIES[family]().base_model, tmp_path / family), tmp_path)
    with pytest.raises(UserError, match=r"^model.path: .* an encoder, which does not generate; .* e.g. model=gpt2"):
        take(source)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_checkpoint_without_its_output_embeddings_is_named(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    model.config.tie_word_embeddings = False
    source = find(save_checkpoint(model.base_model, tmp_path / family), tmp_path)
    with pytest.raises(UserError, match=r"^model.path: .*lacks 1 tensors .*lm_head.weight; give a checkpoint"):
        take(source)
