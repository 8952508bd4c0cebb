"""The dotted keys of a configuration's dataclasses and their types, for runs and pretrainings."""

import difflib
import functools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["config_values", "expected", "keys", "no_such_key", "type_of"]

# What other libraries, and people, call a setting -> what to write here.
_MICRO = "train.micro_batch_size=N: the examples of a batch that are computed at once; the result is that of the batch"
_TRACKER = "tracker=wandb, tensorboard, mlflow, trackio or none"
_ELSEWHERE = {
    **dict.fromkeys(("gradient_accumulation_steps", "gradient_accumulation", "grad_accumulation"), _MICRO),
    **dict.fromkeys(("grad_accum", "accumulate", "accumulation", "accumulation_steps"), _MICRO),
    **dict.fromkeys(("accumulate_grad_batches", "accumulate_gradients"), _MICRO),
    **dict.fromkeys(("micro_batch", "microbatch", "micro_batch_size", "microbatch_size", "micro_bsz"), _MICRO),
    **dict.fromkeys(("per_device_train_batch_size", "per_gpu_batch_size", "per_device_batch_size"), _MICRO),
    **dict.fromkeys(("train_batch_size", "bs", "bsz"), "train.batch_size=N"),
    **dict.fromkeys(("learning_rate", "base_lr", "lr_A", "lr_a"), "optim.lr=RATE"),
    **dict.fromkeys(("lr_B", "lr_b", "loraplus_lr_ratio", "lr_ratio", "lambda"), "lora.ratio=RATIO: lr_B over lr_A"),
    **dict.fromkeys(("lamda", "lambd", "lmbda", "lam", "λ"), "lora.ratio=RATIO: lr_B over lr_A"),
    **dict.fromkeys(("sweep", "study", "studies"), "sweeps=NAME; `loralab study NAME` also collects and draws"),
    **dict.fromkeys(("gradient_checkpointing", "use_gradient_checkpointing"), "model.gradient_checkpointing=true"),
    **dict.fromkeys(("load_in_4bit", "bnb_4bit_quant_type", "qlora", "quantization"), "model.quantize=nf4, or int8"),
    "load_in_8bit": "model.quantize=int8",
    **dict.fromkeys(("run_name", "experiment_name", "exp_name"), "name=NAME, and tags=[a,b]"),
    **dict.fromkeys(("force", "overwrite", "rerun", "overwrite_output_dir"), "--again: trains it once more"),
    "loraplus_lr_embedding": "optim.embedding_lr=RATE",
    **dict.fromkeys(("optimizer", "optimizer_name", "optimizer_type"), "optim.name=adamw, lion, adafactor or sgd"),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "max_epochs"), "train.epochs=N"),
    **dict.fromkeys(("max_steps", "num_steps", "num_train_steps", "iters", "iterations"), "train.steps=N"),
    **dict.fromkeys(("max_seq_length", "max_seq_len", "seq_length", "block_size"), "train.max_length=N"),
    **dict.fromkeys(("warmup_ratio", "warmup_steps"), "optim.warmup=W: a share of the steps, or their number"),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "gradient_clip_val"), "optim.clip=NORM"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), "optim.schedule=linear"),
    **dict.fromkeys(("lora_r", "r"), "lora.rank=N"),
    "lora_alpha": "lora.alpha=ALPHA",
    "lora_dropout": "lora.dropout=SHARE",
    **dict.fromkeys(("target_modules", "lora_target_modules"), "lora.targets=[q,v]"),
    "use_rslora": "method=rslora",
    "use_dora": "method=dora",
    "init_lora_weights": "lora.init=A and lora.init_dist=kaiming",
    "num_beams": "generate.beams=N",
    **dict.fromkeys(("output_dir", "out_dir", "save_dir"), "store=FOLDER"),
    **dict.fromkeys(("report_to", "log_with", "logger", "wandb", "tensorboard", "mlflow", "trackio"), _TRACKER),
    **dict.fromkeys(("model_name_or_path", "base_model", "checkpoint"), "model=NAME or model.path=FOLDER"),
    **dict.fromkeys(("dataset", "dataset_name", "train_file"), "task=NAME, or task=local task.files.train=FILE"),
    **dict.fromkeys(("fp16", "bf16", "mixed_precision", "torch_dtype"), "train.precision=bf16"),
    **dict.fromkeys(("num_threads", "num_workers"), "train.threads=N"),
}  # fmt: skip
_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a string",
    int | float | str: "a number above 0, or auto",
}  # fmt: skip


def type_of(key: str, schema: type) -> Any:
    """The annotation of a dotted key ("" is the whole schema), None where there is no such key."""
    found: Any = schema
    for part in filter(None, key.split(".")):
        found = _hints(found).get(part) if isinstance(found, type) and is_dataclass(found) else None
    return found


def config_values(node: Any) -> Any:
    """A copy of a configuration, or of a node, as nested dicts and lists (as dataclasses.asdict)."""
    if is_dataclass(node):
        return {f.name: config_values(getattr(node, f.name)) for f in fields(node)}
    if isinstance(node, dict):
        return {key: config_values(value) for key, value in node.items()}
    if isinstance(node, list):
        return [config_values(value) for value in node]
    return node


def keys(schema: type, node: str = "") -> Iterator[str]:
    """Every dotted key of a schema, or of one of its nodes; a node comes before its keys."""
    for name in _names(type_of(node, schema)):
        key = f"{node}.{name}" if node else name
        yield key
        if is_dataclass(type_of(key, schema)):
            yield from keys(schema, key)


def no_such_key(key: str, schema: type) -> str:
    """The line for a dotted key that the schema lacks: the keys of its node, and the nearest key."""
    if type_of(key, schema) is not None:  # of a primary config of the user's own (--config-name)
        return f"{key}: this configuration has no such key; to add it, write +{key}=VALUE"
    node, _, name = key.rpartition(".")
    every = list(keys(schema))
    namesakes = [k for k in every if k.rpartition(".")[2] == name]
    near = namesakes if len(namesakes) == 1 else difflib.get_close_matches(key, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    if name in _ELSEWHERE and len(namesakes) != 1 and ("lora" in every or _ELSEWHERE[name].split("=")[0] in every):
        hint = f"; write {_ELSEWHERE[name]}"
    known = is_dataclass(type_of(node, schema))
    of = node if known else ""
    has = f"{of or 'the configuration'} has {', '.join(_names(type_of(of, schema)))}"
    return f"{key}: no such key; {has}{hint}"


def expected(key: str, schema: type) -> str:
    """The type that the schema requires at `key`, in words."""
    annotation, node = type_of(key, schema), key
    while annotation is None and node:  # a key of a mapping, which may have dots
        node = node.rpartition(".")[0]
        if get_origin(mapping := type_of(node, schema)) is dict:
            annotation = get_args(mapping)[1]
    options = [option for option in get_args(annotation) if option is not NoneType]
    if NoneType in get_args(annotation):
        return f"{_words(key, options[0])} or null"
    return _words(key, annotation)


def _words(key: str, annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        example = "[0.9,0.999]" if inner is float else "[q,v]" if key == "lora.targets" else "[a,b]"
        return f"a list, as {key}={example}"
    if get_origin(annotation) is dict:
        example = "q:0.03" if get_args(annotation)[1] is float else "v:16"
        return f"a mapping, as {key}={{{example}}}"
    return f"set by its keys, as {key}.KEY=VALUE"


@functools.cache  # sweeps check thousands of configs
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _names(schema: Any) -> list[str]:
    return [f.name for f in fields(schema)]
