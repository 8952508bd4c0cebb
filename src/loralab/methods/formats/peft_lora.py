"""LoRA adapters in PEFT's file format.

Used at the end of a run and by `loralab export`. The files are written and read without importing peft (its import
takes 3.5 s); tests check that PEFT reads and writes the same files.

PEFT has one adapter per module: one A (r, d_in), one B (d_out, r) and alpha, with delta W = alpha / r * B A. Therefore
alpha includes the scaling rule, and the blocks of a fused projection become one adapter: their A's are stacked, and
each B is placed in its rows.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import write_bytes, write_json
from loralab.methods.dora import DoRALinear
from loralab.methods.lora import bias_updates, lora_modules, swap
from loralab.methods.lora_layers import (
    BiasUpdate,
    Factors,
    LoRAConv1D,
    LoRAEmbedding,
    LoRAModule,
)

__all__ = ["CONFIG", "factors_of", "load_adapter", "read_factors", "save_peft"]

Delta = tuple[Tensor, Tensor, float]
"""A (r, d_in), B (d_out, r) and the scaling of one delta W = scaling B A."""

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# PEFT's defaults for the keys that files of its older versions lack.
OLDER = {"bias": "none", "lora_dropout": 0.0, "alpha_pattern": {}, "use_rslora": False}
# Other tensors in PEFT's files: the frozen table of an adapted embedding; with bias=all, the head's biases thrice.
SPARE = r"\.base_layer\.weight$|\.modules_to_save\.|\.original_module\."
NO_TARGETS = "dummy-target-modules"  # PEFT's own constant for an adapter without LoRA layers


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
    write_bytes(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))


def load_adapter(model: nn.Module, directory: Path) -> None:
    """Loads the adapter of `directory` (PEFT format) into a `model` that already has its modules (`lora.attach`).

    Every trainable parameter is set. If alpha differs, B is rescaled so that the update is the same. The file stores a
    bias as frozen + update, so its update is restored up to rounding.
    Raises UserError if the names or shapes of the tensors differ from the model's; the model is then unchanged.
    """
    config, file = _read(directory)
    modules, biases = lora_modules(model), bias_updates(model)
    owners = [m for m in model.modules() if isinstance(m, Factors | BiasUpdate | DoRALinear)]
    ours = {id(p) for m in owners for p in m.parameters(recurse=False)}
    whole = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in ours}
    with torch.no_grad():
        _check_same(directory, _tensors(model, whole), file)
        values = {name: file[PREFIX + name] for name in whole}
        for name, module in modules.items():
            A, B = (file[key] for key in _factor_names(name, module))
            blocks = _into_blocks(module, A, B, _scaling_in(config, name, len(A)))
            if blocks is None:
                raise UserError(f"{directory}: its update of {name!r} touches outputs that this model does not adapt")
            values |= {f"{name}.blocks.{key}": value for key, value in blocks.items()}
            if isinstance(module, DoRALinear):
                values[f"{name}.magnitude"] = file[_magnitude_name(name)]
        for name, (host, _) in biases.items():
            values[f"{name}.bias_update.b"] = file[_bias_name(name, modules)] - cast(Tensor, host.bias).float().cpu()
    swap(model, values)


def read_factors(directory: Path) -> dict[str, Delta]:
    """A, B and scaling of every map that the adapter of `directory` adapts, by its name in the backbone.

    PEFT or loralab may have written it; ranks and alphas may differ. An embedding is a map of one-hot vectors:
    A (r, tokens). Raises UserError if it is not plain LoRA: no adapter, no factors, or more than A and B (DoRA).
    """
    config, file = _read(directory)
    found = {}
    for name, (key_a, key_b) in _factor_keys(file).items():
        A, B = file[key_a], file.get(key_b)
        dora = _magnitude_name(name) in file
        if dora or B is None or A.ndim != 2:
            what = "DoRA" if dora else "B is missing" if B is None else f"A is {tuple(A.shape)}"
            raise UserError(f"{directory}: its update of {name!r} is not scaling B A of two matrices: {what}")
        found[name] = A, B, _scaling_in(config, name, len(A))
    if not found:
        raise UserError(f"{directory}: no LoRA factors in its {WEIGHTS}; it adapts no map")
    return found


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


def _factor_keys(file: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The name of each adapted map -> a file's keys of its A and B."""
    found = {}
    for key in file:
        match = re.fullmatch(rf"{re.escape(PREFIX)}(?P<name>.+)\.lora_(?P<kind>A\.weight|embedding_A)", key)
        if match is not None:
            found[match["name"]] = key, key[: match.start("kind")] + match["kind"].replace("A", "B")
    return found


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


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's config and tensors; raises UserError if they are missing, damaged or not LoRA."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (directory / CONFIG, directory / WEIGHTS):
        if not file.is_file():
            raise UserError(f"{directory}: no {file.name} there; an adapter in PEFT format has {CONFIG} and {WEIGHTS}")
    try:
        config = OLDER | json.loads((directory / CONFIG).read_text())
        kind = config["peft_type"]
        tensors: dict[str, Tensor] = load_file(directory / WEIGHTS) if kind == "LORA" else {}
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{directory}: its {CONFIG} or {WEIGHTS} is damaged ({error})") from error
    if kind != "LORA":
        raise UserError(f"{directory}: a {kind} adapter; only LORA adapters can be loaded")
    return config, {name: t for name, t in tensors.items() if not re.search(SPARE, name)}


def _scaling_in(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r or alpha / sqrt(r) of one module; the first matching key of alpha_pattern applies, as in PEFT."""
    patterns = config["alpha_pattern"]
    key = next((k for k in patterns if re.match(rf"(.*\.)?({k})$", name)), None)
    alpha: float = config["lora_alpha"] if key is None else patterns[key]
    return alpha / (math.sqrt(rank) if config["use_rslora"] else rank)


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
