"""Virtual tokens have the outputs of PEFT's, with loralab's names and heads, for any padding."""

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from loralab.backbones.attention import use_fp32_softmax
from loralab.backbones.families import linear_maps
from loralab.backbones.first_token import narrow_last_layer
from loralab.errors import UserError
from loralab.methods import lora, prompts
from loralab.training.gradient import backward
from loralab.training.optim import param_groups, param_roles
from loralab.training.threads import Workers
from tests.adapted import LORA, frozen, logits, shake
from tests.families import FAMILIES, PAD, example_batch
from tests.methods.prompted import (
    DECODERS,
    EVERY,
    KINDS,
    PEFT,
    PEFT_GENERATES,
    TOKENS,
    TYPE_OF,
    attach,
    decoder,
    head_of,
    left_padded,
    of_peft,
    prompted,
    row,
)

pytestmark = PEFT

WORKING = [(kind, name) for kind in KINDS for name in EVERY if TYPE_OF[name] in prompts.works_with(kind)]
REFUSED = [(kind, name) for kind in KINDS for name in EVERY if (kind, name) not in WORKING]
NARROWED = ("bert", "roberta", "electra", "xlm_roberta")
kinds = pytest.mark.parametrize("kind", KINDS)
working = pytest.mark.parametrize(("kind", "family"), WORKING)


def in_peft(model: Any, ours: Any, task_type: str) -> Any:
    """PEFT's model around the same backbone, with the weights of our encoder."""
    import peft

    kind, settings = ours.prompt.kind, {"task_type": task_type, "num_virtual_tokens": TOKENS}
    config: Any
    width = model.get_input_embeddings().weight.shape[1]
    if kind == "prefix":
        config = peft.PrefixTuningConfig(**settings)
    elif kind == "prompt":
        config = peft.PromptTuningConfig(**settings, token_dim=width)  # PEFT does not find DistilBERT's
    else:
        config = peft.PromptEncoderConfig(**settings, token_dim=width, encoder_hidden_size=width)
    found = kind == "prefix" and model.config.model_type != "mpt"  # by PEFT
    config.num_layers, config.num_attention_heads = (None, None) if found else (2, 4)
    theirs: Any = peft.get_peft_model(model, config).eval()
    theirs.prompt_encoder["default"].load_state_dict(ours.prompt.encoder.state_dict())
    return of_peft(theirs)


@working
def test_it_gives_the_logits_of_peft(kind: prompts.Kind, family: str) -> None:
    """Prompts before a decoder are compared text by text: PEFT's classifier reads the padding."""
    ours = prompted(family, kind)
    shake(ours.prompt)
    backbone = EVERY[family]()
    theirs = in_peft(backbone, ours, "SEQ_CLS")
    batch = example_batch(ours)
    del batch["labels"]
    padded = kind == "prefix" or family not in DECODERS
    for inputs in [batch] if padded else [row(batch, 0), row(batch, 1)]:
        torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=0, atol=1e-5)


@working
def test_a_texts_logits_do_not_depend_on_its_padding(kind: prompts.Kind, family: str) -> None:
    model = prompted(family, kind)
    batch = example_batch(model)
    alone = torch.cat([model(**row(batch, at)).logits for at in range(2)])
    torch.testing.assert_close(logits(model), alone, rtol=0, atol=1e-5)
    without_mask = model(input_ids=batch["input_ids"][:1]).logits
    torch.testing.assert_close(without_mask, alone[:1], rtol=0, atol=1e-5)


@working
def test_the_gradient_reaches_every_virtual_token_and_the_head_alone(kind: prompts.Kind, family: str) -> None:
    model = prompted(family, kind)
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in names if not name.startswith("prompt.encoder.")} == {
        f"{path}.{leaf}" for path in head_of(model) for leaf, _ in model.get_submodule(path).named_parameters()
    }
    batch = example_batch(model)
    cross_entropy(model(**batch).logits, batch["labels"]).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    assert [name for name, p in names.items() if p.grad is None] == []
    gradient = model.prompt.encoder.embedding.weight.grad
    if kind == "prefix":  # keys and values of every layer
        gradient = gradient.view(TOKENS, model.prompt.layers * 2, -1).transpose(0, 1)
    assert (gradient.flatten(1).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize(("kind", "family"), REFUSED)
def test_other_families_are_refused_in_one_line(kind: prompts.Kind, family: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.name: '{kind}' does not work with '{TYPE_OF[family]}'") as error:
        prompted(family, kind)
    assert "\n" not in str(error.value)
    assert "gpt2" in str(error.value)


@kinds
@pytest.mark.parametrize("family", NARROWED)
def test_it_is_exact_where_the_last_layer_computes_the_first_token_alone(kind: prompts.Kind, family: str) -> None:
    whole, narrow = prompted(family, kind), frozen(family)
    narrow_last_layer(narrow)
    attach(narrow, kind)
    batch = example_batch(whole)
    losses = [cross_entropy(model(**batch).logits, batch["labels"]) for model in (whole, narrow)]
    gradients = [
        torch.autograd.grad(loss, list(model.prompt.parameters()))
        for loss, model in zip(losses, (whole, narrow), strict=True)
    ]
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)


@kinds
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt", "llama"])
def test_sdpa_gives_the_same_logits(kind: prompts.Kind, family: str) -> None:
    eager, sdpa = (prompted(family, kind) for _ in range(2))
    sdpa.set_attn_implementation("sdpa")
    torch.testing.assert_close(logits(sdpa), logits(eager), rtol=0, atol=1e-5)


@kinds
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_beside_a_bf16_backbone_it_is_fp32_and_gives_the_logits_within_rounding(
    kind: prompts.Kind, family: str
) -> None:
    """Also with the softmax in fp32 (20 virtual tokens and 10 of text are a length where it is)."""
    exact, rounded = (frozen(family) for _ in range(2))
    rounded.to(torch.bfloat16)
    use_fp32_softmax(rounded)
    for path in head_of(rounded):
        head = rounded.get_submodule(path).float()
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    for model in (exact, rounded):
        attach(model, kind, tokens=20)
    rounded.prompt.load_state_dict(exact.prompt.state_dict())  # a prompt starts at embeddings, which bf16 rounds
    assert {p.dtype for p in rounded.prompt.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(rounded), logits(exact), rtol=0, atol=5e-2)
    batch = example_batch(rounded)
    cross_entropy(rounded(**batch).logits, batch["labels"]).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in rounded.prompt.parameters())


@kinds
def test_the_start_depends_on_the_seed_alone(kind: prompts.Kind) -> None:
    torch.manual_seed(1)
    first = prompted("bert", kind, seed=7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = prompted("bert", kind, seed=7), prompted("bert", kind, seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.prompt.vectors(), other.prompt.vectors())
    assert not torch.allclose(logits(first), logits(frozen("bert")), atol=1e-2), "no start at zero"


def test_a_prompt_starts_at_embeddings_of_the_vocabulary() -> None:
    model = prompted("gpt2", "prompt")
    table = model.transformer.wte.weight
    assert all((vector == table).all(1).any() for vector in model.prompt.vectors())
    model.prompt.encoder.embedding.weight.data.add_(1)
    assert torch.equal(table, frozen("gpt2").transformer.wte.weight)


@kinds
def test_matrices_are_decayed_and_biases_are_not(kind: prompts.Kind) -> None:
    model = prompted("bert", kind, hidden=None if kind == "prompt" else 16)
    roles = {name: role for name, role in param_roles(model, head_of(model)).items() if role != "head"}
    assert {name.endswith("bias"): role for name, role in roles.items()}.items() <= {
        True: "bias",
        False: "weight",
    }.items()
    groups = param_groups(
        model, head=head_of(model), lr=1e-2, ratio=1.0, head_lr=None, embedding_lr=1e-6, weight_decay=0.1
    )
    decay = {name: group["weight_decay"] for group in groups for name in group["names"] if name in roles}
    assert {roles[name]: value for name, value in decay.items()}.items() <= {"weight": 0.1, "bias": 0.0}.items()
    assert (len(roles) == 1) == (kind == "prompt")


@kinds
def test_a_copy_is_its_own_and_no_name_changes(kind: prompts.Kind) -> None:
    model = prompted("bert", kind)
    assert [n for n in model.state_dict() if not n.startswith("prompt.")] == list(frozen("bert").state_dict())
    before, other = logits(model), deepcopy(model)
    assert torch.equal(logits(other), before)
    shake(other)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(other), before, atol=1e-3)


@kinds
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_threads_that_share_the_model_give_the_gradient_of_one(kind: prompts.Kind, family: str) -> None:
    def gradient(workers: int) -> list[Tensor]:
        model = prompted(family, kind)
        parameters = [p for p in model.parameters() if p.requires_grad]
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        with Workers(workers) as at_work:
            backward(
                model,
                example_batch(model),
                loss_of=cross_entropy,
                scaler=scaler,
                parameters=parameters,
                workers=at_work,
                parts=workers,
            )
        return [p.grad for p in parameters if p.grad is not None]

    two = gradient(2)
    torch.testing.assert_close(two, gradient(1), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(two, gradient(2), strict=True))


def test_segments_begin_after_the_virtual_tokens() -> None:
    """A prompt is of segment 0, as in PEFT."""
    for kind in KINDS:
        model = prompted("bert", kind)
        batch = row(example_batch(model), 0)
        types = torch.tensor([[0] * 4 + [1] * 6])
        found = model(**batch, token_type_ids=types).logits
        theirs = in_peft(FAMILIES["bert"](), model, "SEQ_CLS")(**batch, token_type_ids=types).logits
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)
        assert not torch.allclose(found, model(**batch).logits, atol=1e-4)


@kinds
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_lora_starts_at_zero_beside_virtual_tokens_and_both_are_trained(kind: prompts.Kind, family: str) -> None:
    """LoRA+PL and LoRA+PE (LoRA, appendix E)."""
    model, alone = frozen(family), prompted(family, kind)
    lora.attach(model, linear_maps(model), head=head_of(model), **LORA)
    attach(model, kind)
    assert torch.equal(logits(model), logits(alone))
    roles = set(param_roles(model, head_of(model)).values())
    assert roles >= {"A", "B", "weight", "head"}
    shake(model)
    before = logits(model)
    lora.merge(model)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)


@kinds
@pytest.mark.parametrize("family", sorted(set(DECODERS) & set(FAMILIES)))
def test_an_answer_is_what_the_logits_say_token_by_token(kind: prompts.Kind, family: str) -> None:
    """With texts of two lengths, padded on the left: positions are those of training, whose calls have no padding."""
    model = attach(decoder(family), kind)
    batch = left_padded()
    found = model.generate(**batch, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True)
    assert found.sequences.shape == (2, 10)
    for at in range(2):
        text = row(batch, at)["input_ids"]
        for step, new in enumerate(found.sequences[at, 6:]):
            told = model(input_ids=text).logits
            assert told.shape[1] == text.shape[1], "of the text alone"
            torch.testing.assert_close(found.logits[step][at], told[0, -1], rtol=0, atol=1e-4)
            assert new == told[0, -1].argmax()
            text = torch.cat([text, new.view(1, 1)], dim=1)


@kinds
def test_beams_do_not_see_their_company_and_equal_pefts(kind: prompts.Kind) -> None:
    model, batch = attach(decoder("gpt2"), kind), left_padded()
    theirs = in_peft(decoder("gpt2"), model, "CAUSAL_LM")
    beams: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "num_beams": 3, "length_penalty": 0.9}
    told = {"return_dict_in_generate": True, "output_scores": True}
    together = model.generate(**batch, generation_config=GenerationConfig(**beams, **told, pad_token_id=PAD))
    for at in range(2):
        alone = model.generate(**row(batch, at), **beams, **told)
        assert torch.equal(model.generate(**row(batch, at), **beams), alone.sequences)
        pefts = [theirs.generate(**row(batch, at), **beams, **told)] if PEFT_GENERATES else []
        for other in (together.sequences[at : at + 1, 6:], *(found.sequences[:, -5:] for found in pefts)):
            assert torch.equal(other, alone.sequences[:, -5:])
        for score in (together.sequences_scores[at : at + 1], *(found.sequences_scores for found in pefts)):
            torch.testing.assert_close(score, alone.sequences_scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "prompt.tokens: got 0; at least 1"),
        ({"tokens": 64}, "prompt.tokens: got 64; at least 1 and at most 63"),
        ({"hidden": 8}, "prompt.hidden: got 8; .* set it to null"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompted("bert", "prompt", **settings)


def test_without_peft_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"needs peft, which is not installed; pip install -e '\.\[peft\]'"):
        prompted("bert", "prefix")


def test_peft_is_imported_for_nobody_else() -> None:
    code = "import sys, loralab.methods.prompts, loralab.methods.formats.peft_prompt; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
