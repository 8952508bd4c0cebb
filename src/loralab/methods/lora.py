"""LoRA: attaches factors to the targeted maps of a frozen backbone, merges them, and swaps them.

LoRA+ uses the same adapter and differs only in the learning rates (`loralab.training.optim`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.dora import DoRAConv1D, DoRALinear
from loralab.methods.lora_layers import (
    ALL_ROWS,
    BiasUpdate,
    EmbeddingFactors,
    Factors,
    LoRAConv1D,
    LoRAEmbedding,
    LoRALinear,
    LoRAModule,
    Rows,
)
from loralab.methods.targets import WHOLE, RoleMap, Target, adaptable, maps_by_name, matches, select
from loralab.theory.rate_law import SCALINGS

__all__ = [
    "attach",
    "bias_updates",
    "linear_factors",
    "lora_modules",
    "merge",
    "shape_of",
    "swap",
    "train_bias",
    "unmerge",
    "wrap",
]


def attach(
    model: nn.Module,
    maps: Sequence[RoleMap],
    *,
    head: Sequence[str],
    targets: Sequence[str],
    rank: int,
    alpha: float,
    scaling: str,
    init: Literal["A", "B"],
    init_dist: Literal["kaiming", "gaussian"],
    dropout: float,
    bias: Literal["none", "lora", "all"],
    rank_pattern: Mapping[str, int],
    seed: int,
    dora: bool = False,
    copies: int = 1,
) -> None:
    """Adds scaling * B A to each targeted map of `model`, in place; delta W = 0 until trained.

    maps: the linear maps by role, empty where no roles are known (`all` is then every linear map); head: names of
    modules that are fully trained, never adapted; targets and the keys of rank_pattern: roles or globs (the last
    matching key of rank_pattern wins). The factors are drawn on the CPU from
    `seed` in the order of the modules, so that they are the same on every device. dora: adds a magnitude to each map.
    copies: of each unit of the backbone; the factors are then copies as well.
    Raises UserError for a target or pattern that matches nothing, and with dora for one that is not a whole linear map.
    """
    modules = adaptable(model, head)
    maps = maps or maps_by_name(model, modules)
    chosen = select(targets, maps, modules, model=model)
    _check_copies(chosen, maps, copies)
    ranks = _ranks(chosen, maps, modules, rank, rank_pattern)
    generator = torch.Generator().manual_seed(seed)
    grouped: dict[str, list[Target]] = {}
    for target in chosen:
        grouped.setdefault(target.name, []).append(target)
    for name, parts in grouped.items():
        base = modules[name]
        cls, d_in, d_out = shape_of(base)
        if dora:
            cls = _with_magnitude(name, cls, parts)
        blocks = {}
        for part in parts:
            rows = _rows(part.rows, d_out)
            size = d_out if part.rows is None else len(part.rows)
            r = ranks[part]
            if r > min(d_in, size) // copies:
                full, end = min(d_in, size) // copies, name.rsplit(".", 1)[-1]
                raise UserError(
                    f"lora.rank: got {r}, but the full rank of {name} ({d_in} to {size}) is {full}; give less, or this "
                    f"map a rank of its own: lora.rank_pattern={{{end}: {full}}}"
                )
            make = EmbeddingFactors if cls is LoRAEmbedding else Factors
            s = SCALINGS[scaling](alpha, r)
            factors = make(d_in, size, rank=r, scaling=s, dropout=dropout, rows=rows, copies=copies)
            factors.reset(init=init, dist=init_dist, generator=generator)
            blocks[part.block] = factors
        wrap(model, name, cls(base, blocks))
    _train_biases(model, head, bias)


def wrap(model: nn.Module, name: str, adapted: LoRAModule) -> None:
    """Replaces the module `name` by `adapted`, on the same device and in the same mode.

    A weight that is shared (T5's embeddings) is copied first, since merging must change only this map.
    """
    weight = adapted.weight
    users = [module for module in model.modules() if any(p is weight for p in module._parameters.values())]
    if len(users) > 1:
        adapted.base.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    adapted.train(adapted.base.training)
    adapted.blocks.to(adapted.weight.device)
    model.set_submodule(name, adapted)


def train_bias(module: nn.Module) -> None:
    """Adds a trained update, zero at first, to the frozen bias of `module`."""
    frozen = cast(Tensor, module.bias)
    role: Literal["bias", "norm"] = "norm" if _is_norm(module) else "bias"
    module.bias_update = BiasUpdate(frozen.shape[0], role=role).to(frozen.device)
    module.register_forward_hook(module.bias_update)


def lora_modules(model: nn.Module) -> dict[str, LoRAModule]:
    """Every adapted map, by its name in the backbone."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRAModule)}


def linear_factors(model: nn.Module) -> dict[str, tuple[LoRALinear, Factors]]:
    """Every adapted linear map and its factors, by name; a block of a fused map is `<name>.<block>`."""
    return {
        name if block == WHOLE else f"{name}.{block}": (module, factors)
        for name, module in lora_modules(model).items()
        if isinstance(module, LoRALinear)
        for block, factors in module.factors().items()
    }


def bias_updates(model: nn.Module) -> dict[str, tuple[nn.Module, BiasUpdate]]:
    """Every module with a trained bias, by its name, with the update of that bias."""
    return {
        name: (module, cast(BiasUpdate, module.bias_update))
        for name, module in model.named_modules()
        if "bias_update" in module._modules
    }


def merge(model: nn.Module) -> None:
    """Merges every adapter of `model` into its frozen map (LoRA, section 4.1)."""
    for module in lora_modules(model).values():
        module.merge()


def unmerge(model: nn.Module) -> None:
    """Removes every merged adapter, exact up to rounding in the weights' precision."""
    for module in lora_modules(model).values():
        module.unmerge()


def swap(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Replaces the adapter by another of the same shape: W0 + B' A' for W0 + B A; a merged adapter stays merged.

    factors: `{n: p for n, p in model.named_parameters() if p.requires_grad}` of the other adapter.
    Raises UserError if names or shapes differ; the model is then unchanged.
    """
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if wrong := sorted(own.keys() ^ factors.keys()) or [n for n in own if own[n].shape != factors[n].shape]:
        raise UserError(
            f"swap: the adapters differ in {wrong[0]!r} ({len(wrong)} in all); only equal shapes can be swapped"
        )
    merged = [module for module in lora_modules(model).values() if module.merged]
    for module in merged:
        module.unmerge()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(factors[name])
    for module in merged:
        module.merge()


def _ranks(
    chosen: Sequence[Target],
    maps: Sequence[RoleMap],
    modules: Mapping[str, nn.Module],
    rank: int,
    rank_pattern: Mapping[str, int],
) -> dict[Target, int]:
    ranks = dict.fromkeys(chosen, rank)
    for pattern, value in rank_pattern.items():
        named = {(t.name, t.block) for t in select([pattern], maps, modules, key="lora.rank_pattern")}
        hits = [t for t in chosen if (t.name, t.block) in named or matches(pattern, t.name)]
        if not hits:
            raise UserError(f"lora.rank_pattern: {pattern!r} matches none of the maps that lora.targets selects")
        ranks.update(dict.fromkeys(hits, value))
    return ranks


def _check_copies(chosen: Sequence[Target], maps: Sequence[RoleMap], copies: int) -> None:
    """Raises UserError for a target of a backbone with exact copies that is no map of its blocks, in one role."""
    between = {(m.name, m.rows) for m in maps}
    outside = [t.name for t in chosen if (t.name, t.rows) not in between]
    if copies > 1 and outside:
        raise UserError(
            f"lora.targets: {outside[0]} has inputs or outputs that are not copied as one, and the backbone has exact "
            "copies (model.widen without noise); name roles alone (q, k, v, o, mlp, all), or set model.widen_noise"
        )


def _with_magnitude(name: str, cls: type[LoRAModule], parts: Sequence[Target]) -> type[LoRAModule]:
    if issubclass(cls, LoRALinear) and [part.block for part in parts] == [WHOLE]:
        return DoRAConv1D if cls is LoRAConv1D else DoRALinear
    if cls is LoRAEmbedding:
        raise UserError(f"lora.dora: {name} is an embedding, and DoRA is for linear maps; take it out of lora.targets")
    end = name.rsplit(".", 1)[-1]
    raise UserError(
        f"lora.dora: {name} holds several maps in one, and its rows have one magnitude each; name the whole of it in "
        f"lora.targets ({end}) in the place of {', '.join(part.block for part in parts)}"
    )


def shape_of(base: nn.Module) -> tuple[type[LoRAModule], int, int]:
    """The class that adapts `base`, and its d_in and d_out."""
    if isinstance(base, nn.Linear):
        return LoRALinear, base.in_features, base.out_features
    if isinstance(base, nn.Embedding):
        return LoRAEmbedding, base.num_embeddings, base.embedding_dim
    d_in, d_out = cast(Tensor, base.weight).shape
    return LoRAConv1D, d_in, d_out


def _rows(rows: range | tuple[int, ...] | None, d_out: int) -> Rows:
    if rows is None or rows == range(d_out):
        return ALL_ROWS
    if isinstance(rows, range) and rows.step == 1:
        return slice(rows.start, rows.stop)
    return tuple(rows)


def _train_biases(model: nn.Module, head: Sequence[str], bias: str) -> None:
    """Trains the biases of the adapted maps (`lora`), or all outside the head (`all`): PEFT's lora_only and all."""
    if bias == "none":
        return
    hosts = {f"{name}.base": m.base for name, m in lora_modules(model).items()}
    if bias == "all":
        hosts = {n: m for n, m in model.named_modules() if not any(n == h or n.startswith(f"{h}.") for h in head)}
    for module in list(hosts.values()):
        if "bias" in module._parameters and module.bias is not None:
            train_bias(module)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))
