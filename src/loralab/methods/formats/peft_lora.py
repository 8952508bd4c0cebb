"""LoRA adapters in PEFT's file format.

Used at the end of a run and by `loralab export`. The files are written and read without importing peft (its import
takes 3.5 s); tests check that PEFT reads and writes the same files.

PEFT has one adapter per module: one A (r, d_in), one B (d_out, r) and alpha, with delta W = alpha / r * B A. Therefore
alpha includes the scaling rule, and the blocks of a fused projection become one adapter: their A's are stacked, and
each B is placed in its rows.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import write_bytes, write_json
from loralab.methods.dora import DoRAConv1D, DoRALinear
from loralab.methods.formats.peft_config import CONFIG, NO_TARGETS, WEIGHTS
from loralab.methods.formats.peft_folder import PREFIX, PeftLoRA, read_lora
from loralab.methods.lora import bias_updates, lora_modules, shape_of, swap, train_bias, wrap
from loralab.methods.lora_layers import (
    ALL_ROWS,
    BiasUpdate,
    EmbeddingFactors,
    Factors,
    LoRAConv1D,
    LoRAEmbedding,
    LoRAModule,
)
from loralab.methods.targets import WHOLE

__all__ = ["CONFIG", "attach_peft", "factors_in", "factors_of", "load_adapter", "read_factors", "save_peft"]

Delta = tuple[Tensor, Tensor, float]
"""A (r, d_in), B (d_out, r) and the scaling of one delta W = scaling B A."""


def save_peft(model: nn.Module, directory: Path, *, head: Sequence[str], base_model: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel.from_pretrained` loads.

    The file holds A and B of every adapted map (with DoRA its magnitude too), the trained biases (frozen bias + update)
    and the whole head (`modules_to_save`), all in their own precision (fp32). Equal weights have equal bytes. Without
    an adapted map (method=head) it is PEFT's adapter without targets. base_model: the name or path that PEFT loads the
    backbone by.
    Each file is written atomically, the weights last; an older adapter in `directory` is replaced.
    """
    from safetensors.torch import save

    whole = {f"{path}.{key}": t for path in head for key, t in model.get_submodule(path).state_dict().items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in _tensors(model, whole).items()}
    write_json(directory / CONFIG, _config(model, head, base_model))
    write_bytes(directory / WEIGHTS[0], save(tensors, metadata={"format": "pt"}))


def load_adapter(model: nn.Module, directory: Path) -> None:
    """Loads the adapter of `directory` (PEFT format) into a `model` that already has its modules (`lora.attach`).

    Every trainable parameter is set. If alpha differs, B is rescaled so that the update is the same. The file stores a
    bias as frozen + update, so its update is restored up to rounding.
    Raises UserError if the names or shapes of the tensors differ from the model's; the model is then unchanged.
    """
    _load(model, read_lora(directory))


def attach_peft(model: nn.Module, directory: Path) -> None:
    """Attaches the adapter of a folder in PEFT's LoRA format to a bare `model`, as trained as it is in the folder.

    The model computes what that of `peft.PeftModel.from_pretrained` does. Trainable is what PEFT trained: A and B (with
    DoRA the magnitudes), the modules to save, and the biases; all else is frozen. Each adapter covers its whole map.
    Raises UserError, and changes nothing, if the folder has no LoRA or DoRA, or was made for another model.
    """
    found = read_lora(directory)
    found.check_shapes(model)
    found.check_fit(model)
    hosts = dict(model.named_modules())
    if tables := [name for name in found.magnitudes if shape_of(hosts[name])[0] is LoRAEmbedding]:
        raise UserError(f"{directory}: it adapts the embedding {tables[0]!r} by DoRA, which is here for linear maps")
    copies = _beside_adapted(model, found)
    _untie(model, [*copies, *(name for name in found.whole if found.config.saves(name))])
    found = _once(model, found)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in found.whole)
    for name, (A, B) in found.factors.items():
        cls = shape_of(hosts[name])[0]
        if name in found.magnitudes:
            cls = DoRAConv1D if cls is LoRAConv1D else DoRALinear
        make = EmbeddingFactors if cls is LoRAEmbedding else Factors
        scaling, dropout = found.scaling(name), found.config["lora_dropout"]
        factors = make(A.shape[1], len(B), rank=len(A), scaling=scaling, dropout=dropout, rows=ALL_ROWS)
        wrap(model, name, cls(hosts[name], {WHOLE: factors}))
    modules = lora_modules(model)
    for name, module in list(model.named_modules()):
        inner = name.removesuffix(".base")
        whole = f"{inner}.weight" in found.whole  # a module with both is trained whole
        if _bias_name(name, modules) in found.tensors and not whole:
            cast(Tensor, module.bias).requires_grad_(False)
            train_bias(module)
    _load(model, found)
    for name in copies:
        model.get_parameter(name).requires_grad_(False)


def _beside_adapted(model: nn.Module, found: PeftLoRA) -> list[str]:
    """What the file brings whole of the model's ties with an adapted map: PEFT's copy of the output embeddings."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    adapted = {id(parameters[f"{name}.weight"]) for name in found.factors}
    return [name for name in found.whole if id(parameters[name]) in adapted and not found.config.saves(name)]


def _untie(model: nn.Module, names: Iterable[str]) -> None:
    """Gives modules that PEFT copies (`modules_to_save`) their own parameters in the place of shared ones."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        own = module._parameters[leaf]
        if own is not None and sum(p is own for _, p in model.named_parameters(remove_duplicate=False)) > 1:
            module._parameters[leaf] = nn.Parameter(own.detach().clone())


def _once(model: nn.Module, found: PeftLoRA) -> PeftLoRA:
    """The adapter with tied parameters (those that are still tied) under their first name alone."""
    every, first = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in first.items()}
    tensors, whole = dict(found.tensors), dict[str, Tensor]()
    for name, value in found.whole.items():
        only = names[id(every[name])]
        if only in whole and not torch.equal(whole[only], value):
            raise UserError(f"{found.directory}: its {name} and {only} differ, and the model ties them")
        whole[only] = value
        if only != name:
            tensors[PREFIX + only] = tensors.pop(PREFIX + name)
    return replace(found, tensors=tensors, whole=whole)


def _load(model: nn.Module, found: PeftLoRA) -> None:
    directory, file = found.directory, found.tensors
    modules, biases = lora_modules(model), bias_updates(model)
    owners = [m for m in model.modules() if isinstance(m, Factors | BiasUpdate | DoRALinear)]
    ours = {id(p) for m in owners for p in m.parameters(recurse=False)}
    whole = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in ours}
    with torch.no_grad():
        _check_same(directory, _tensors(model, whole), file)
        if not any(module.merged for module in modules.values()):
            found.check_frozen(model)
        values = {name: file[PREFIX + name] for name in whole}
        for name, module in modules.items():
            A, B = found.factors[name]
            blocks = _into_blocks(module, A, B, found.scaling(name))
            if blocks is None:
                raise UserError(f"{directory}: its update of {name!r} touches outputs that this model does not adapt")
            values |= {f"{name}.blocks.{key}": value for key, value in blocks.items()}
            if isinstance(module, DoRALinear):
                values[f"{name}.magnitude"] = found.magnitudes[name]
        for name, (host, _) in biases.items():
            values[f"{name}.bias_update.b"] = file[_bias_name(name, modules)] - cast(Tensor, host.bias).float().cpu()
    swap(model, values)


def read_factors(directory: Path) -> dict[str, Delta]:
    """A, B and scaling of every map that the adapter of `directory` adapts, by its name in the backbone.

    PEFT or loralab may have written it; ranks and alphas may differ. An embedding is a map of one-hot vectors:
    A (r, tokens). Raises UserError if it is not plain LoRA: no adapter, no factors, or more than A and B (DoRA).
    """
    return factors_in(read_lora(directory))


def factors_in(found: PeftLoRA) -> dict[str, Delta]:
    """The same of a folder that is read. Raises UserError for DoRA, and where it adapts no map."""
    if found.magnitudes:
        name = next(iter(found.magnitudes))
        raise UserError(f"{found.directory}: its update of {name!r} is not scaling B A of two matrices: DoRA")
    if not found.factors:
        raise UserError(f"{found.directory}: no LoRA factors in its {WEIGHTS[0]}; it adapts no map")
    return {name: (A, B, found.scaling(name)) for name, (A, B) in found.factors.items()}


def factors_of(model: nn.Module) -> dict[str, Delta]:
    """A, B and scaling of every adapted map of `model`, as `save_peft` writes them. Raises UserError for DoRA."""
    for name, module in lora_modules(model).items():
        if isinstance(module, DoRALinear):
            raise UserError(f"the update of {name!r} is not scaling B A of two matrices: DoRA")
    return {name: (*_one_adapter(module), _scaling(module)) for name, module in lora_modules(model).items()}


def _config(model: nn.Module, head: Sequence[str], base_model: str) -> dict[str, Any]:
    modules = lora_modules(model)
    ranks = {name: sum(f.rank for f in m.factors().values()) for name, m in modules.items()}
    alphas = {name: _alpha(_scaling(m), ranks[name]) for name, m in modules.items()}
    rank = _commonest(ranks.values())
    alpha = _commonest(alphas.values())
    return {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {_exactly(n): r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {_exactly(n): a for n, a in alphas.items() if a != alpha},
        "lora_dropout": max((f.dropout for m in modules.values() for f in m.factors().values()), default=0.0),
        "bias": _bias_mode(model),
        "target_modules": list(modules) or NO_TARGETS,
        "modules_to_save": list(head),
        "fan_in_fan_out": any(isinstance(m, LoRAConv1D) for m in modules.values()),
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": any(isinstance(m, DoRALinear) for m in modules.values()),
    }


def _task_type(model: Any) -> str:
    """PEFT's task type of the model; a model that does not generate is a classifier."""
    generates = getattr(model, "can_generate", None)  # a plain nn.Module has none
    if generates is None or not generates():
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _tensors(model: nn.Module, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every trained tensor under its name in PEFT's file; `whole` are those trained in place (the head)."""
    tensors = {PREFIX + name: value for name, value in whole.items()}
    modules = lora_modules(model)
    for name, module in modules.items():
        tensors.update(zip(_factor_names(name, module), _one_adapter(module), strict=True))
        if isinstance(module, DoRALinear):
            tensors[_magnitude_name(name)] = module.magnitude
    for name, (host, update) in bias_updates(model).items():
        tensors[_bias_name(name, modules)] = cast(Tensor, host.bias).float() + update.b
    return tensors


def _one_adapter(module: LoRAModule) -> tuple[Tensor, Tensor]:
    """A (R, d_in) and B (d_out, R) with R the sum of the blocks' ranks and `_scaling(module)` B A the whole update."""
    blocks = list(module.factors().values())
    A = torch.cat([block.A.detach() for block in blocks])
    B = A.new_zeros(module.d_out, len(A))
    start = 0
    for block in blocks:
        rows = block.rows_index if isinstance(block.rows, tuple) else block.rows
        B[rows, start : start + block.rank] = block.B.detach() * (block.scaling / _scaling(module))
        start += block.rank
    return A, B


def _scaling(module: LoRAModule) -> float:
    """The adapter's scaling: the first block's. B of a block with another scaling (rank_pattern) has the quotient."""
    return next(iter(module.factors().values())).scaling


def _alpha(scaling: float, rank: int) -> float:
    """alpha with alpha / rank = scaling, as an integer where it is one."""
    alpha = scaling * rank
    return round(alpha) if round(alpha) / rank == scaling else alpha


def _factor_names(name: str, module: LoRAModule) -> tuple[str, str]:
    if isinstance(module, LoRAEmbedding):
        return f"{PREFIX}{name}.lora_embedding_A", f"{PREFIX}{name}.lora_embedding_B"
    return f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight"


def _magnitude_name(name: str) -> str:
    return f"{PREFIX}{name}.lora_magnitude_vector"


def _bias_name(host: str, adapted: dict[str, LoRAModule]) -> str:
    """PEFT's name of a bias; the bias of an adapted map is in `base_layer`."""
    inner = host.removesuffix(".base")
    return f"{PREFIX}{inner}.base_layer.bias" if inner != host and inner in adapted else f"{PREFIX}{host}.bias"


def _bias_mode(model: nn.Module) -> str:
    hosts = bias_updates(model)
    if not hosts:
        return "none"
    adapted = {f"{name}.base" for name in lora_modules(model)}
    return "lora_only" if hosts.keys() <= adapted else "all"


def _exactly(name: str) -> str:
    """A regular expression that PEFT matches with this module name only."""
    return f"^{re.escape(name)}"


def _commonest(values: Iterable[float]) -> float:
    """The value of most modules; other values become exceptions (`rank_pattern`). Without modules, 1."""
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else 1


def _into_blocks(module: LoRAModule, A: Tensor, B: Tensor, scaling: float) -> dict[str, Tensor] | None:
    """The inverse of `_one_adapter`, as `<block>.A` and `<block>.B`; None where B is not zero outside the blocks."""
    values = {}
    rest, start = B.clone(), 0
    for name, block in module.factors().items():
        columns = slice(start, start + block.rank)
        rows = block.rows_index.cpu() if isinstance(block.rows, tuple) else block.rows
        values[f"{name}.A"] = A[columns]
        values[f"{name}.B"] = B[rows, columns] * (scaling / block.scaling)
        rest[rows, columns] = 0
        start += block.rank
    return values if not rest.any() else None


def _check_same(directory: Path, own: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> None:
    """Raises UserError unless the file has the model's tensors in their shapes."""
    wrong: Iterable[str] = sorted(own.keys() ^ file.keys()) or [k for k in own if own[k].shape != file[k].shape]
    for key in wrong:
        here, there = (tuple(t[key].shape) if key in t else "none" for t in (own, file))
        raise UserError(f"{directory}: it does not fit the model: {key}: {there} in the file, {here} in the model")
