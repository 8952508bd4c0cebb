"""config.json and generation_config.json of an exported checkpoint: the base's, but for what training changed.

Training turns dropout and the cache of keys and values off and decodes without the checkpoint's settings; an export
takes these back from the base's own files. Of the trained model it keeps its class, precision, labels and, where a head
reads the last token before the padding, the padding token.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loralab.backbones import tiny
from loralab.backbones.source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["keep_base_config", "untie"]

CONFIG = "config.json"
GENERATION = "generation_config.json"
# Keys that the trained model decides: of every model, and of a classifier.
OURS = ("architectures", "dtype", "transformers_version")
OF_CLASSIFIER = ("id2label", "label2id", "problem_type", "pad_token_id")
# What T5's config has made of tie_word_embeddings since transformers 5.
SCALES = "scale_decoder_outputs"
# Of the base's keys only these have no place in an export: the code that auto_map names is not exported.
DROPPED = ("auto_map",)


def keep_base_config(model: "PreTrainedModel", directory: Path, base: Source) -> None:
    """Rewrites the two files that `model.save_pretrained(directory)` wrote, from those of its `base`."""
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
    if _differ(model) and not _scales_output(model.config):
        changed |= {key: False for key in ("tie_word_embeddings", SCALES) if key in trained}
    found = {key: value for key, value in kept.items() if key not in DROPPED} | changed
    (directory / CONFIG).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    (directory / GENERATION).unlink(missing_ok=True)  # without it transformers derives one from config.json
    if generates and base.directory is not None and (base.directory / GENERATION).is_file():
        shutil.copyfile(base.directory / GENERATION, directory / GENERATION)


def untie(model: Any) -> None:
    """Sets tie_word_embeddings to false where input and output embeddings differ; the model computes the same.

    By the same key T5's config says that the decoder's output is scaled by 1 / sqrt(d_model); the output embeddings
    take that factor over.
    """
    if not getattr(model.config, "tie_word_embeddings", False) or not _differ(model):
        return
    if _scales_output(model.config):
        output = model.get_output_embeddings()
        output.weight = torch.nn.Parameter(output.weight * model.config.d_model**-0.5, requires_grad=False)
        if hasattr(model.config, SCALES):
            setattr(model.config, SCALES, False)
    model.config.tie_word_embeddings = False


def _of_base(base: Source) -> dict[str, Any]:
    from transformers import AutoConfig

    if base.directory is None:
        found: dict[str, Any] = json.loads(AutoConfig.for_model(**tiny.architecture(base.name)).to_json_string())
    else:
        found = json.loads((base.directory / CONFIG).read_text(encoding="utf-8"))
    return found


def _differ(model: Any) -> bool:
    """Whether the model has input and output embeddings that differ."""
    output = model.get_output_embeddings()
    if output is None or output.weight is model.get_input_embeddings().weight:
        return False
    one, other = model.get_input_embeddings().weight, output.weight
    return one.shape != other.shape or not torch.equal(one, other)


def _scales_output(config: Any) -> bool:
    """Whether the family scales the decoder's output while its embeddings are tied (T5, UMT5, LongT5, Switch)."""
    return bool(getattr(config, SCALES, config.model_type == "switch_transformers"))
