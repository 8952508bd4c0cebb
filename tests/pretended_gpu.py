"""A GPU played by the CPU: its tensors compute as the CPU's do, and mix with none of them, as on CUDA.

Its device, `pretended`, is a backend of torch's: autograd, optimizers, autocast and `.to` treat it as a GPU. Each
operation on its tensors runs on the CPU, so that results equal the CPU's. An operation on tensors of both devices is a
RuntimeError, as is `.numpy()`; what makes the host wait is recorded, with the functions that asked for it.
"""

# torch types its backends' parts as untyped functions, and a subclass's attributes by the base's
# mypy: disable-error-code="no-untyped-call, assignment, override, attr-defined"

import functools
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["NAME", "Gpu", "pretended_gpu"]

NAME = "pretended"
# Operations of aten that copy between devices, and those that need a value of the device on the host.
COPIES = {"_to_copy", "copy_", "_copy_from"}
WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_consecutive", "_unique2", "is_nonzero"}


_LIBRARY: list[torch.library.Library] = []  # what it registered stays as long as it does


class _Module:
    """What torch asks of a backend's module."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Its generator is the CPU's."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def _register() -> torch.device:
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Module)
        for made in ("empty_strided", "empty.memory_format"):  # torch.tensor calls them where no mode is asked
            torch.library.impl(f"aten::{made}", "PrivateUse1", lambda *a, op=made, **k: _made(op, a, k))
        torch.library.impl("aten::_copy_from", "PrivateUse1", _copied)
        _LIBRARY.append(torch.library.Library("_", "IMPL", "AutocastPrivateUse1"))
        _LIBRARY[-1].fallback(torch.library.fallthrough_kernel)
        for product in (torch.ops.aten.linear.default, torch.ops.aten.matmul.default):
            torch.library.impl(product.name(), "AutocastPrivateUse1", functools.partial(_in_low_precision, product))
    return torch.device(NAME, 0)


def _made(op: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
    name, _, overload = op.partition(".")
    func = getattr(getattr(torch.ops.aten, name), overload or "default")
    return _OnGpu(func(*args, **{**kwargs, "device": torch.device("cpu")}))


class _OnGpu(Tensor):
    """A tensor of the pretended GPU; `inner`: its values, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_OnGpu":
        with torch.inference_mode(inner.is_inference()):
            made: _OnGpu = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=_register(),
            )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, _GPU[-1])

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def storage(self) -> Any:
        return self.inner.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)

    @property
    def data(self) -> Tensor:
        return _OnGpu(self.inner.data)

    @data.setter
    def data(self, new: Tensor) -> None:
        Tensor.data.__set__(self, new)
        self.inner = _plain(new)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "_OnGpu":
        return _OnGpu(inner["inner"])


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _plain(target).copy_(_plain(source))
    return target


def _in_low_precision(product: Any, *args: Tensor | None) -> Tensor:
    """What autocast does to a matrix product."""
    dtype, keys = torch.get_autocast_dtype(NAME), torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        out: Tensor = product(*(None if x is None else x.to(dtype) for x in args))
    return out


@dataclass
class Gpu:
    """What happened on it: the operations run, and those that the host waited for, with the functions that asked."""

    operations: int = 0
    waits: list[tuple[str, ...]] = field(default_factory=list)


_GPU: list[Gpu] = []


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, _GPU[-1])


def _computed(func: Any, args: Any, kwargs: dict[str, Any], gpu: Gpu) -> Any:
    leaves = tree_leaves((args, kwargs))
    ours = [x for x in leaves if isinstance(x, _OnGpu)]
    asked = [x for x in leaves if isinstance(x, torch.device)]
    here = any(place.type == NAME for place in asked)
    if not ours and not here:
        return func(*args, **kwargs)
    gpu.operations += 1
    name = func.overloadpacket.__name__
    theirs = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, _OnGpu) and x.device.type == "cpu"]
    if name not in COPIES and ours and any(x.dim() for x in theirs):
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found {NAME}:0 and cpu")
    down = (bool(asked) and not here) or (name == "copy_" and not isinstance(args[0], _OnGpu))
    if name in WAITS or (down and ours) or (name in {"index", "index_put_"} and _masked(args)):
        gpu.waits.append((name, *_callers()))
    plain = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    if down:
        return args[0] if name == "copy_" else plain
    known = {id(x.inner): x for x in ours}
    return tree_map(lambda x: known[id(x)] if id(x) in known else _OnGpu(x) if isinstance(x, Tensor) else x, plain)


def _plain(value: Any) -> Any:
    if isinstance(value, _OnGpu):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _masked(args: Any) -> bool:
    return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1])


def _callers() -> tuple[str, ...]:
    """The functions that are running, outermost first, as `training/loop.py:train`: ours, then transformers'."""
    frames = traceback.extract_stack()
    ours = [(f.filename.rpartition("/loralab/")[2], f.name) for f in frames if "/loralab/" in f.filename]
    theirs = [(f.filename.rpartition("/transformers/")[2], f.name) for f in frames if "/transformers/" in f.filename]
    return tuple(f"{file}:{name}" for file, name in [*ours, *theirs])


@contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """Inside, `torch.device("pretended")` is there."""
    _register()
    _GPU.append(Gpu())
    try:
        with _Mode():
            yield _GPU[-1]
    finally:
        _GPU.pop()
