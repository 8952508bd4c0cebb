"""Adapters and models as others read them: PEFT's format on disk, and plain transformers checkpoints.

At the end of a run, and behind `loralab export`. PEFT's files are written and read here without importing peft (its
import takes 3.5 s); that PEFT itself reads and writes the same is what the tests show.

PEFT has one adapter a module: one A (r, d_in), one B (d_out, r) and alpha, with delta W = alpha / r * B A. So a rule of
scaling goes into alpha, and the blocks of a fused projection become one adapter: their A's stacked, each B in its rows.
"""

import contextlib
import copy
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import atomic_directory, write_bytes, write_json
from loralab.methods.factors import (
    ALL_ROWS,
    BiasUpdate,
    EmbeddingFactors,
    Factors,
    LoRAConv1D,
    LoRAEmbedding,
    LoRAModule,
)
from loralab.methods.lora import bias_updates, lora_modules, shape_of, swap, train_bias, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["attach_peft", "export_adapter", "export_merged", "load_adapter", "save_peft"]

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NO_TARGETS = "dummy-target-modules"  # PEFT's own constant for an adapter without LoRA layers


def save_peft(model: nn.Module, directory: Path, *, head: Sequence[str], base_model: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel.from_pretrained` loads.

    The file holds A and B of every adapted map, the trained biases (frozen bias + update) and the whole head
    (`modules_to_save`), all in their own precision (fp32). Equal weights give equal bytes. Without an adapted map
    (method=head) it is PEFT's adapter without targets. base_model: the name or path that PEFT loads the backbone by.
    Each file is written atomically, the weights last; `directory` may hold an older adapter, which is replaced.
    """
    from safetensors.torch import save

    tensors = {name: t.detach().cpu().contiguous() for name, t in _tensors(model, head).items()}
    write_json(directory / CONFIG, _config(model, head, base_model))
    write_bytes(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))


def load_adapter(model: nn.Module, directory: Path) -> None:
    """Puts the adapter of `directory` (PEFT format) into `model`, whose modules are in place already (`lora.attach`).

    Every trainable parameter gets its value; the update is kept where alpha differs, by way of B. A bias is kept as
    frozen + update in the file, so it comes back within a rounding.
    Raises UserError where the tensors' names or shapes differ from the model's, or an update lies outside the model's blocks.
    """
    config, file = _read(directory)
    modules = lora_modules(model)
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        _same_tensors(directory, _tensors(model, _head_modules(model)), file)
        for name, module in modules.items():
            A, B = (file[key] for key in _factor_names(name, module))
            blocks = _into_blocks(module, A, B, _scaling_of(config, name, len(A)))
            if blocks is None:
                raise UserError(f"{directory}: its update of {name!r} touches outputs that this model does not adapt")
            values |= {f"{name}.blocks.{key}": value for key, value in blocks.items()}
        for name, (host, _) in bias_updates(model).items():
            frozen = cast(Tensor, host.bias)
            values[f"{name}.bias_update.b"] = file[_bias_name(name, modules)].to(frozen.device) - frozen.float()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in values:
            values[name] = file[PREFIX + name]
    swap(model, values)


def attach_peft(model: nn.Module, directory: Path) -> None:
    """Builds the adapter of a PEFT directory (plain LoRA) on a bare `model`, and loads it: what others trained, as ours.

    Each adapter covers the whole of its map. The rest of the file (head, biases) replaces the model's and is trainable.
    Raises UserError for what is not plain LoRA (DoRA, ...), and for a module that the model lacks or that has another shape.
    """
    config, file = _read(directory)
    modules = dict(model.named_modules())
    for key in file:
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_(A\.weight|embedding_A)", key)
        if match is None:
            continue
        if match[1] not in modules:
            raise UserError(f"{directory}: it adapts {match[1]!r}, which this model does not have")
        base, rank = modules[match[1]], len(file[key])
        cls, d_in, d_out = shape_of(base)
        make = EmbeddingFactors if cls is LoRAEmbedding else Factors
        scaling, dropout = _scaling_of(config, match[1], rank), config["lora_dropout"]
        factors = make(d_in, d_out, rank=rank, scaling=scaling, dropout=dropout, rows=ALL_ROWS)
        wrap(model, match[1], cls(base, {"whole": factors}))
    adapted = lora_modules(model)
    for name, module in list(model.named_modules()):
        if "bias" in module._parameters and module.bias is not None and _bias_name(name, adapted) in file:
            own = _bias_name(name, adapted)
            if own.endswith(".base_layer.bias") or (config["bias"] == "all" and not _in_saved(own, config)):
                train_bias(module)
    for name, parameter in model.named_parameters():
        if PREFIX + name in file and not any(name.startswith(f"{host}.") for host in bias_updates(model)):
            parameter.requires_grad_(True)
    load_adapter(model, directory)


def export_adapter(model: nn.Module, directory: Path, *, head: Sequence[str], base_model: str) -> None:
    """`save_peft` to a new directory, which appears whole or not at all. Raises UserError where it is not empty."""
    with _new(directory) as temporary:
        save_peft(model, temporary, head=head, base_model=base_model)


def export_merged(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", directory: Path, *, dtype: torch.dtype
) -> None:
    """A plain transformers checkpoint in `dtype`: W0 + scaling B A, trained biases and head, under the backbone's names.

    `AutoModelForSequenceClassification` and `AutoTokenizer` load it. The model stays as it is, and its frozen tensors
    are not copied where they are in `dtype` already. Raises UserError where the directory is not empty.
    """
    from transformers.utils import logging

    config = copy.deepcopy(model.config)
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(_plain_state(model, dtype), assign=True)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with _new(directory) as temporary:
            plain.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
    finally:
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _new(directory: Path) -> Iterator[Path]:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"--to: {directory} is there already and is not an empty directory; name a new one")
    with atomic_directory(directory) as temporary:
        yield temporary


def _plain_state(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict that the backbone would have, had it been trained itself; tied tensors stay tied."""
    modules, updates = lora_modules(model), bias_updates(model)
    inserted = {f"{name}.blocks" for name in modules} | {f"{host}.bias_update" for host in updates}
    added = {f"{path}.{key}" for path in inserted for key in model.get_submodule(path).state_dict()}
    state: dict[str, Tensor] = {}
    cast_once: dict[tuple[int, torch.Size], Tensor] = {}
    for key, tensor in model.state_dict().items():
        if key in added:
            continue
        owner, _, leaf = key.rpartition(".")
        name = owner.removesuffix(".base")
        module = modules[name] if name != owner and name in modules else None
        plain = key if module is None else f"{name}.{leaf}"
        if module is not None and leaf == "weight" and not module.merged:
            state[plain] = (tensor.float() + module.delta()).to(dtype)
        elif leaf == "bias" and owner in updates:
            state[plain] = (tensor.float() + updates[owner][1].b.detach()).to(dtype)
        elif tensor.is_floating_point():
            state[plain] = cast_once.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(dtype))
        else:
            state[plain] = tensor
    return state


def _config(model: nn.Module, head: Sequence[str], base_model: str) -> dict[str, Any]:
    modules = lora_modules(model)
    ranks = {name: sum(f.rank for f in m.factors().values()) for name, m in modules.items()}
    alphas = {name: _alpha(_scaling(m), ranks[name]) for name, m in modules.items()}
    rank = _commonest(ranks.values(), 8)
    alpha = _commonest(alphas.values(), 8)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
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
        "use_dora": False,
    }


def _tensors(model: nn.Module, head: Sequence[str]) -> dict[str, Tensor]:
    """Every trained tensor under the name that PEFT's file gives it."""
    tensors = {}
    modules = lora_modules(model)
    for name, module in modules.items():
        for key, value in zip(_factor_names(name, module), _one_adapter(module), strict=True):
            tensors[key] = value
    for name, (host, update) in bias_updates(model).items():
        tensors[_bias_name(name, modules)] = cast(Tensor, host.bias).float() + update.b
    for path in head:
        for key, value in model.get_submodule(path).state_dict().items():
            tensors[f"{PREFIX}{path}.{key}"] = value
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
    """The adapter's scaling: the first block's (blocks of other scalings, by rank_pattern, carry the quotient in B)."""
    return next(iter(module.factors().values())).scaling


def _alpha(scaling: float, rank: int) -> float:
    """alpha with alpha / rank = scaling, as an integer where it is one."""
    alpha = scaling * rank
    return round(alpha) if round(alpha) / rank == scaling else alpha


def _factor_names(name: str, module: LoRAModule) -> tuple[str, str]:
    if isinstance(module, LoRAEmbedding):
        return f"{PREFIX}{name}.lora_embedding_A", f"{PREFIX}{name}.lora_embedding_B"
    return f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight"


def _bias_name(host: str, adapted: dict[str, LoRAModule]) -> str:
    """PEFT's name of a bias; that of an adapted map stays with the map, in `base_layer`."""
    inner = host.removesuffix(".base")
    return f"{PREFIX}{inner}.base_layer.bias" if inner != host and inner in adapted else f"{PREFIX}{host}.bias"


def _bias_mode(model: nn.Module) -> str:
    hosts = bias_updates(model)
    if not hosts:
        return "none"
    adapted = {f"{name}.base" for name in lora_modules(model)}
    return "lora_only" if hosts.keys() <= adapted else "all"


def _exactly(name: str) -> str:
    """The regular expression that PEFT matches with this one module name alone."""
    return f"^{re.escape(name)}"


def _commonest(values: Any, empty: float) -> float:
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else empty


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's config and tensors; UserError where they are missing, or are not plain LoRA."""
    from safetensors.torch import load_file

    for file in (directory / CONFIG, directory / WEIGHTS):
        if not file.is_file():
            raise UserError(f"{directory}: no {file.name} there; an adapter in PEFT format has {CONFIG} and {WEIGHTS}")
    config = json.loads((directory / CONFIG).read_text())
    if config["peft_type"] != "LORA":
        raise UserError(f"{directory}: a {config['peft_type']} adapter; only LORA adapters can be loaded")
    tensors: dict[str, Tensor] = load_file(directory / WEIGHTS)
    return config, tensors


def _scaling_of(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r or alpha / sqrt(r) of one module; the keys of alpha_pattern match as PEFT matches them: first match wins."""
    patterns = config["alpha_pattern"]
    key = next((k for k in patterns if re.match(rf"(.*\.)?({k})$", name)), None)
    alpha: float = config["lora_alpha"] if key is None else patterns[key]
    return alpha / (math.sqrt(rank) if config["use_rslora"] else rank)


def _into_blocks(module: LoRAModule, A: Tensor, B: Tensor, scaling: float) -> dict[str, Tensor] | None:
    """The inverse of `_one_adapter`: `<block>.A` and `<block>.B` by name; None where B is not zero outside its blocks."""
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


def _head_modules(model: nn.Module) -> list[str]:
    """The modules that own a trainable parameter which is neither a factor nor the update of a bias."""
    ours = (Factors, BiasUpdate)
    return [
        name
        for name, module in model.named_modules()
        if not isinstance(module, ours) and any(p.requires_grad for p in module.parameters(recurse=False))
    ]


def _in_saved(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor of the file belongs to `modules_to_save`, which PEFT matches by the ends of module names."""
    name = key.removeprefix(PREFIX)
    parents = ["", *(name[: m.start()] for m in re.finditer(r"\.", name))]
    return any(parent.endswith(saved) for parent in parents for saved in config["modules_to_save"] or ())


def _same_tensors(directory: Path, own: Mapping[str, Tensor], file: dict[str, Tensor]) -> None:
    """Raises UserError unless the file has the model's tensors in their shapes."""
    for key in [k for k in file if k.endswith(".base_layer.weight")]:
        del file[key]  # PEFT adds the frozen table of an adapted embedding
    wrong: Iterable[str] = sorted(own.keys() ^ file.keys()) or [k for k in own if own[k].shape != file[k].shape]
    for key in wrong:
        here, there = (tuple(t[key].shape) if key in t else "none" for t in (own, file))
        raise UserError(f"{directory}: it does not fit the model: {key}: {there} in the file, {here} in the model")
