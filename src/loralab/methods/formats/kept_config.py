"""config.json and generation_config.json of an exported checkpoint: the base's, but for what training changed.

Training turns dropout and the cache of keys and values off and decodes without the checkpoint's settings; an export
takes these back from the base's own files. Of the trained model it keeps its class, precision, labels and, where a head
reads the last token before the padding, the padding token. The tokenizer pads on the base's side again.
"""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loralab.backbones import tiny
from loralab.backbones.source import Source
from loralab.backbones.widen import SIZES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["keep_base_config", "save_tokenizer", "scales_output", "tied_apart", "untie", "with_copies"]

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer_config.json"
# Keys that the trained model decides: of every model, and of a classifier.
OURS = ("architectures", "dtype", "transformers_version")
OF_CLASSIFIER = ("id2label", "label2id", "problem_type", "pad_token_id")
# What T5's config has made of tie_word_embeddings since transformers 5.
SCALES = "scale_decoder_outputs"
# Of the base's keys only these have no place in an export: the code that auto_map names is not exported.
DROPPED = ("auto_map",)


def keep_base_config(model: "PreTrainedModel", directory: Path, base: Source, *, untied: bool) -> None:
    """Rewrites the two files that `model.save_pretrained(directory)` wrote, from those of its `base`.

    untied: whether the checkpoint holds tensors apart that the base's config ties.
    """
    trained = json.loads(model.config.to_json_string(use_diff=False))  # with the keys that have their class's default
    kept = _of_base(base)
    if kept["model_type"] != trained["model_type"]:  # a part of a composite model: transformers' own file fits it
        return
    generates = model.can_generate()
    changed = {key: trained[key] for key in (OURS if generates else OURS + OF_CLASSIFIER)}
    if "torch_dtype" in kept:  # the name in transformers 4, which still reads it
        changed["torch_dtype"] = changed["dtype"]
    if "num_labels" in kept and not generates:  # it would win over id2label
        changed["num_labels"] = model.config.num_labels
    if base.widen > 1:
        names = {model.config.attribute_map.get(name, name) for name in SIZES}
        changed |= {name: trained[name] for name in names if name in trained}
    if untied:
        changed |= {key: False for key in ("tie_word_embeddings", SCALES) if key in trained}
    found = {key: value for key, value in kept.items() if key not in DROPPED} | changed
    (directory / CONFIG).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    (directory / GENERATION).unlink(missing_ok=True)  # without it transformers derives one from config.json
    if generates and base.directory is not None and (base.directory / GENERATION).is_file():
        shutil.copyfile(base.directory / GENERATION, directory / GENERATION)


def save_tokenizer(tokenizer: Any, directory: Path, base: Source | None) -> None:
    """Writes the tokenizer with the side that its `base` pads on; training pads on the right.

    A decoder continues texts that are padded on the left, and XLNet classifies by the last position.
    """
    tokenizer.save_pretrained(directory)
    if base is None or base.directory is None:
        return
    own, kept = directory / TOKENIZER, base.directory / TOKENIZER
    settings = json.loads(own.read_text(encoding="utf-8"))
    settings.pop("padding_side", None)  # without it the side is that of the tokenizer's class
    of_base = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    settings |= {key: value for key, value in of_base.items() if key == "padding_side"}
    own.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def tied_apart(model: Any) -> frozenset[str]:
    """The names of all parameters that the model's config ties, where two of them differ; otherwise none.

    BART ties three tables and its output embeddings; T5Gemma's output embeddings and its decoder's table alone.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True)
    both = [(one, other) for one, other in pairs.items() if {one, other} <= parameters.keys()]
    if all(_equal(parameters[one], parameters[other]) for one, other in both):
        return frozenset()
    return frozenset(name for pair in both for name in pair)


def untie(model: Any) -> frozenset[str]:
    """Sets tie_word_embeddings to false where tied parameters differ, and returns their names (`tied_apart`).

    The model computes the same. By the same key T5's config says that the decoder's output is scaled by
    1 / sqrt(d_model); the output embeddings take that factor over.
    """
    apart = tied_apart(model)
    if not apart:
        return apart
    output = model.get_output_embeddings()
    if output is not None and scales_output(model.config):
        output.weight = torch.nn.Parameter(output.weight * model.config.d_model**-0.5, requires_grad=False)
    if hasattr(model.config, SCALES):
        setattr(model.config, SCALES, False)
    model.config.tie_word_embeddings = False
    return apart


def with_copies(model: "PreTrainedModel", names: Collection[str]) -> dict[str, Tensor]:
    """The state dict, where `names` share no memory: transformers leaves out all but one of those that do."""
    return {name: tensor.clone() if name in names else tensor for name, tensor in model.state_dict().items()}


def _of_base(base: Source) -> dict[str, Any]:
    from transformers import AutoConfig

    if base.directory is None:
        found: dict[str, Any] = json.loads(AutoConfig.for_model(**tiny.architecture(base.name)).to_json_string())
    else:
        found = json.loads((base.directory / CONFIG).read_text(encoding="utf-8"))
    return found


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


def scales_output(config: Any) -> bool:
    """Whether the family scales the decoder's output while its embeddings are tied (T5, UMT5, LongT5, Switch)."""
    return bool(getattr(config, SCALES, config.model_type == "switch_transformers"))
