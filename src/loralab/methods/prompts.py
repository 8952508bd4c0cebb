"""Prefix tuning, prompt tuning and P-tuning: trained virtual tokens before the text; the backbone is frozen.

prompt trains their embeddings (Lester et al. 2021). p_tuning computes the embeddings from trained vectors by an MLP
("GPT understands, too", Liu et al. 2021). prefix trains their keys and values in every layer (Li and Liang 2021). They
are computed by PEFT's encoders, and the outputs equal those of PEFT's models; parameter names, the head and
`model(**batch)` are as in every other method.

The logits change before the first step, also because the virtual tokens' positions come before the text's. A head that
reads the first position (BERT) reads that of the first virtual token with prompt and p_tuning, as in PEFT, and that of
the text with prefix. A decoder's head reads the last token of the text, and generation counts positions without
padding; in PEFT, prompt and p_tuning read the padding and count it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from loralab.backbones.families import FAMILIES
from loralab.compat.peft import prefix_encoder, prompt_embedding, prompt_encoder
from loralab.compat.transformers import cache_in, cache_name, filled_cache
from loralab.errors import UserError

__all__ = ["Kind", "Prefix", "Prompt", "VirtualTokens", "attach", "virtual_tokens", "works_with"]

Kind = Literal["prefix", "prompt", "p_tuning"]

Named = dict[str, Any]


class VirtualTokens(nn.Module):
    """Base of the three kinds: PEFT's encoder, which returns (tokens, width) in fp32, and the insertion of the tokens.

    A forward pass writes nothing, so threads may share the model. A call with a cache of keys and values comes from
    `generate` below: its input already has the virtual tokens in front.
    """

    indices: Tensor

    def __init__(self, kind: Kind, encoder: nn.Module, tokens: int) -> None:
        super().__init__()
        self.kind, self.tokens, self.encoder = kind, tokens, encoder
        self.register_buffer("indices", torch.arange(tokens), persistent=False)

    def vectors(self) -> Tensor:
        """The encoder's output (tokens, width), in fp32; after training the encoder itself is not needed."""
        return cast(Tensor, self.encoder(self.indices))

    def settle(self, vectors: Tensor) -> None:
        """Replaces the encoder by frozen vectors (tokens, width)."""
        self.encoder = _table(vectors.to(self.indices.device))

    def front(self, rows: int) -> Tensor:
        """The ids (rows, tokens) that precede the text's."""
        raise NotImplementedError  # implemented by Prompt and Prefix

    def seen(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """The attention mask (b, tokens + t): every text attends to the virtual tokens."""
        mask = torch.ones_like(ids) if mask is None else mask
        return torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)

    def memory(self, _model: Any, _rows: int) -> Named:
        """Arguments of a call of the model besides its inputs."""
        return {}

    @torch.no_grad()
    def generate(self, model: Any, *, input_ids: Tensor, attention_mask: Tensor | None = None, **named: Any) -> Any:
        """transformers' `generate` for texts padded on the left, with the virtual tokens before each text.

        The result does not contain them. A cache is always used.
        """
        rows, settings = len(input_ids), named.get("generation_config") or model.generation_config
        assert settings.use_cache is not False, "without a cache, every step would insert the virtual tokens again"
        copies = max(named.get(key) or getattr(settings, key) or 1 for key in ("num_beams", "num_return_sequences"))
        found = type(model).generate(
            model,
            input_ids=torch.cat([self.front(rows), input_ids], dim=1),
            attention_mask=self.seen(input_ids, attention_mask),
            **self.memory(model, rows * copies),
            **named,
        )
        if isinstance(found, Tensor):
            return found[:, self.tokens :]
        found.sequences = found.sequences[:, self.tokens :]
        return found


class Prompt(VirtualTokens):
    """Embeddings of virtual tokens (prompt, p_tuning), whose ids follow the model's vocabulary.

    Positions, masks and a head that looks for the last token work as for a longer text.
    """

    def __init__(self, kind: Kind, encoder: nn.Module, tokens: int, vocabulary: int) -> None:
        super().__init__(kind, encoder, tokens)
        self.vocabulary = vocabulary

    def front(self, rows: int) -> Tensor:
        return (self.indices + self.vocabulary).expand(rows, -1)

    def embed(self, embedding: nn.Module, ids: Tensor) -> Tensor:
        """The embeddings (b, t, d) of `ids`; only the first `tokens` ids may be virtual."""
        real = cast(Tensor, type(embedding).forward(embedding, ids.clamp(max=self.vocabulary - 1)))
        n = min(self.tokens, ids.shape[1])
        is_virtual = (ids[:, :n] >= self.vocabulary).unsqueeze(-1)
        first = torch.where(is_virtual, self.vectors()[:n].to(real.dtype), real[:, :n])
        return torch.cat([first, real[:, n:]], dim=1)

    def before(self, _model: nn.Module, arguments: tuple[Any, ...], named: Named) -> tuple[tuple[Any, ...], Named]:
        """The model's inputs with the virtual tokens in front; a forward pre-hook."""
        if cache_in(named) is not None:
            return arguments, named
        ids = _ids(arguments, named)
        longer = {
            "input_ids": torch.cat([self.front(len(ids)), ids], dim=1),
            "attention_mask": self.seen(ids, named.get("attention_mask")),
        }
        if named.get("token_type_ids") is not None:
            types = named["token_type_ids"]
            longer["token_type_ids"] = torch.cat([types.new_zeros(len(ids), self.tokens), types], dim=1)
        if _at_targets(named):
            at = named["logits_to_keep"]
            longer["logits_to_keep"] = torch.cat([at.new_zeros(len(ids), self.tokens), at], dim=1)
        return (), named | longer

    def after(self, _model: nn.Module, _arguments: tuple[Any, ...], named: Named, output: Any) -> Any:
        """A language model's logits for the text only; a forward hook."""
        if cache_in(named) is None and not _at_targets(named):
            output.logits = output.logits[:, self.tokens :]
        return output


class Prefix(VirtualTokens):
    """Keys and values of virtual tokens in every layer, passed to the model as a filled cache."""

    def __init__(
        self, encoder: nn.Module, tokens: int, *, heads: int, layers: int, pad: int | None, cache_name: str
    ) -> None:
        super().__init__("prefix", encoder, tokens)
        self.heads, self.layers, self.cache_name = heads, layers, cache_name
        self.placeholder = 1 if pad == 0 else 0  # generation needs an id for each cached token; it is not used

    def front(self, rows: int) -> Tensor:
        return torch.full_like(self.indices, self.placeholder).expand(rows, -1)

    def memory(self, model: Any, rows: int) -> Named:
        dtype = model.get_input_embeddings().weight.dtype
        both = self.vectors().to(dtype).view(self.tokens, self.layers, 2, self.heads, -1)
        keys_values = both.permute(1, 2, 3, 0, 4).unsqueeze(2).expand(-1, -1, rows, -1, -1, -1)  # (l, 2, b, h, t, d)
        return {self.cache_name: filled_cache((k, v) for k, v in keys_values)}

    def before(self, model: nn.Module, arguments: tuple[Any, ...], named: Named) -> tuple[tuple[Any, ...], Named]:
        """The model's inputs with a cache that holds the virtual tokens; a forward pre-hook."""
        if cache_in(named) is not None:
            return arguments, named
        ids = _ids(arguments, named)
        mask = self.seen(ids, named.get("attention_mask"))
        return (), named | {"attention_mask": mask, **self.memory(model, len(ids))}


def attach(model: Any, *, head: Sequence[str], kind: Kind, tokens: int, hidden: int | None, seed: int) -> None:
    """Adds `tokens` trained virtual tokens before every text that the frozen `model` reads, in place.

    They are `model.prompt`, drawn on the CPU from `seed` only; no other name changes. hidden: width of the MLP that
    computes them (p_tuning: None means the embeddings' width; prefix: None means no MLP; prompt has no MLP). A prompt
    is initialised with the embeddings of tokens drawn from the vocabulary, the other kinds from N(0, 1), as in PEFT.
    LoRA, if used too, must be attached first. The `generate` of a generator then inserts the virtual tokens.
    Raises UserError without peft, for a family that `kind` does not work with, and for zero or too many tokens.
    """
    del head  # its training does not change
    _check(model, kind, tokens, hidden)
    embedding = model.get_input_embeddings()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        virtual = _make(model, embedding, kind, tokens, hidden)
    for module in virtual.modules():
        own = dict(module.named_parameters(recurse=False))
        if own:
            roles = {name: "weight" if p.ndim > 1 else "bias" for name, p in own.items()}
            module.parameter_roles = roles  # type: ignore[assignment]  # torch types attributes as tensors or modules
    model.prompt = virtual.to(embedding.weight.device).train(model.training)
    model.register_forward_pre_hook(virtual.before, with_kwargs=True)
    if isinstance(virtual, Prompt):
        embedding.forward = partial(virtual.embed, embedding)
        if model.can_generate():
            model.register_forward_hook(virtual.after, with_kwargs=True)
    if model.can_generate():
        model.generate = partial(virtual.generate, model)


def works_with(kind: Kind) -> tuple[str, ...]:
    """The model types that `kind` works with: no encoder-decoders, and for prefix only those that read a cache."""
    return tuple(
        name
        for name, family in FAMILIES.items()
        if family.kind != "encoder_decoder" and (kind != "prefix" or family.takes_cache)
    )


def virtual_tokens(model: nn.Module) -> VirtualTokens | None:
    """The virtual tokens of `model`, or None."""
    found = getattr(model, "prompt", None)
    return found if isinstance(found, VirtualTokens) else None


def _check(model: Any, kind: Kind, tokens: int, hidden: int | None) -> None:
    family, known = model.config.model_type, works_with(kind)
    if family not in known:
        raise UserError(
            f"method.name: {kind!r} does not work with {family!r} backbones; it works with {', '.join(known)}"
        )
    if getattr(model, "prompt", None) is not None:
        raise UserError(f"method.name: {kind!r}: the model has virtual tokens already")
    if kind == "prompt" and hidden is not None:
        raise UserError(f"prompt.hidden: got {hidden}; method=prompt trains its embeddings directly: set it to null")
    longest = getattr(model.config, "max_position_embeddings", None)  # BLOOM's positions are unlimited
    if tokens < 1 or (longest is not None and tokens >= longest):
        most = "" if longest is None else f" and at most {longest - 1}, so that a text fits beside them"
        raise UserError(f"prompt.tokens: got {tokens}; at least 1{most}")


def _make(model: Any, embedding: nn.Module, kind: Kind, tokens: int, hidden: int | None) -> VirtualTokens:
    """Creates PEFT's encoder, drawn from torch's default generator, and the module that uses it."""
    weight, config = cast(Tensor, embedding.weight), model.config
    rows, width = weight.shape
    try:
        if kind == "prefix":
            heads, head_width = _key_heads(config)
            layers, name = config.num_hidden_layers, cache_name(model)
            if name is None:
                raise UserError(
                    f"method.name: 'prefix': this {config.model_type!r} backbone does not accept cached keys"
                )
            encoder = prefix_encoder(tokens=tokens, layers=layers, heads=heads, width=head_width, hidden=hidden)
            return Prefix(encoder, tokens, heads=heads, layers=layers, pad=config.pad_token_id, cache_name=name)
        if kind == "p_tuning":
            encoder = prompt_encoder(tokens=tokens, width=width, hidden=hidden or width)
        else:
            encoder = prompt_embedding(tokens=tokens, table=_table(weight.detach()))  # the module itself may be adapted
    except ImportError as error:
        raise UserError(
            f"method.name: {kind!r} needs peft, which is not installed; pip install -e '.[peft]'"
        ) from error
    return Prompt(kind, encoder, tokens, vocabulary=rows)


def _key_heads(config: Any) -> tuple[int, int]:
    """The number of key heads, which may be less than that of query heads (Llama), and their width."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return getattr(config, "num_key_value_heads", None) or heads, width


def _table(rows: Tensor) -> nn.Embedding:
    return nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows, _freeze=True)


def _at_targets(named: Named) -> bool:
    """Whether logits are asked for at the positions of a mask, not for the last ones (an int, from `generate`)."""
    return isinstance(named.get("logits_to_keep"), Tensor)


def _ids(arguments: tuple[Any, ...], named: Named) -> Tensor:
    assert not arguments and named.get("input_ids") is not None, (
        "a model with virtual tokens needs input_ids as a named argument"
    )
    return cast(Tensor, named["input_ids"])
