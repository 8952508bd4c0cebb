"""The peak memory of a run's training step, predicted from sizes alone, before weights are read or a GPU is asked for.

Two steps run on tensors without numbers (torch's FakeTensorMode), and the bytes of those that are alive are counted.
torch's own MemTracker counts them too, but refuses a model with frozen parameters (2.13).
"""

import math
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loralab import device, tasks
from loralab.backbones.load import Backbone
from loralab.backbones.recompute import recompute_layers
from loralab.backbones.weightless import weightless
from loralab.backbones.weights import quiet
from loralab.config.schema import Config
from loralab.methods.registry import CATALOGUE
from loralab.runs.build import backbone_dtype
from loralab.runs.plan import Plan
from loralab.runs.prepare import groups_of, parts_of, workers_of
from loralab.training import optim
from loralab.training.distributed import ALONE
from loralab.training.evaluate import forward

__all__ = ["Peak", "predicted", "shape_of"]


@dataclass(frozen=True)
class Peak:
    """Bytes of the frozen weights; of what is trained, with its gradients and moments; and of all at a step's peak."""

    frozen: int
    trained: int
    peak: int

    @property
    def activations(self) -> int:
        """What the peak has beside both: activations that wait for the backward pass, and temporary tensors."""
        return self.peak - self.frozen - self.trained


def predicted(planned: Plan) -> Peak | None:
    """The peak of a step on a whole batch of the longest texts; None where it is not known.

    They have train.max_length tokens, generate.max_new_tokens of them the answer's. Unknown is a GGUF file that was
    never dequantised, and a family whose forward looks at the numbers in its tensors.
    """
    try:
        with warnings.catch_warnings(), quiet(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            with torch.device("meta"):
                backbone = _unloaded(planned)
            with FakeTensorMode(allow_non_fake_inputs=True):
                return _counted(planned, backbone)
    except Exception:  # of any class: a family's forward on tensors without numbers
        return None


def shape_of(config: Config) -> tuple[object, ...]:
    """What the peak depends on, of the settings that a sweep is likely to vary; the largest batch of tokens last."""
    lora, train = config.lora, config.train
    adapter = (config.method.name, lora.rank, tuple(lora.targets), lora.dora, config.optim.name)
    batch = (train.precision, train.micro_batch_size or 0, train.batch_size, train.max_length)
    return (repr(config.model), *adapter, *batch)


def _unloaded(planned: Plan) -> Backbone:
    """The backbone with its method, as `adapted_backbone` makes them, on the device `meta`."""
    config, method = planned.config, CATALOGUE[planned.config.method.name]
    backbone = weightless(
        planned.source,
        generates=config.task.name in tasks.GENERATION,
        dropout=config.model.dropout,
        attention=config.model.attention,
        dtype=backbone_dtype(config),
        quantize=config.model.quantize,
    )
    method.attach(backbone, config)
    if config.model.gradient_checkpointing:
        recompute_layers(backbone.model, name=config.model.name)
    backbone.model.train()
    return backbone


def _counted(planned: Plan, backbone: Backbone) -> Peak:
    config, model = planned.config, cast(nn.Module, backbone.model)
    _move_to_cpu(model)
    optimizer = optim.optimizer(
        config.optim.name, groups_of(config, backbone), betas=config.optim.betas, eps=config.optim.eps
    )
    weights = [p for p in model.parameters() if p.requires_grad]
    rows, passes = _at_once(planned)
    with _Living([*model.parameters(), *model.buffers()]) as living:
        start = living.bytes
        for _ in range(2):  # in the second, the moments exist during the backward pass
            for _ in range(passes):
                _backward(model, _batch(config, backbone, rows))
            if config.optim.clip is not None:
                torch.nn.utils.clip_grad_norm_(weights, config.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        moments = living.bytes - start
    size = sum(weight.nbytes for weight in weights)
    return Peak(frozen=start - size, trained=2 * size + moments, peak=living.peak)


def _move_to_cpu(model: nn.Module) -> None:
    """Replaces every tensor by one of its size on the CPU; equal ones by one. `Module.to` cannot, of fake tensors."""
    moved: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None and id(old) not in moved:
                    new = torch.empty_like(old, device="cpu")
                    moved[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                if old is not None:
                    tensors[name] = moved[id(old)]


def _at_once(planned: Plan) -> tuple[int, int]:
    """The rows of a batch that are computed at once, by all threads, and how often."""
    batch = planned.config.train.batch_size
    parts = min(parts_of(planned, ALONE), batch)
    threads = planned.config.train.threads or device.OWN_THREADS
    workers = min(workers_of(planned, threads, ALONE), parts)
    return math.ceil(batch / parts) * workers, math.ceil(parts / workers)


def _batch(config: Config, backbone: Backbone, rows: int) -> dict[str, Any]:
    """A batch of the longest texts, without numbers."""

    def ids(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.long)

    length, answer = config.train.max_length, min(config.generate.max_new_tokens, config.train.max_length - 1)
    batch: dict[str, Any] = {"input_ids": ids(rows, length), "attention_mask": ids(rows, length)}
    if config.task.name not in tasks.GENERATION:
        return {**batch, "labels": ids(rows)}
    if backbone.seq2seq:
        return {**batch, "decoder_input_ids": ids(rows, answer), "labels": ids(rows, answer)}
    if backbone.at_targets:
        return {**batch, "logits_to_keep": answer, "labels": ids(rows, answer)}
    return {**batch, "labels": ids(rows, length)}


def _backward(model: nn.Module, batch: dict[str, Any]) -> None:
    logits, labels = forward(model, batch), batch["labels"]
    loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Inside, counts the bytes of the storages that are alive: those of `tensors`, and those that operations make."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self._sizes: dict[int, int] = {}
        for tensor in tensors:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        storage: Any = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.bytes += self._sizes[key]
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor):
                self._add(value)
        return made
