"""f_kn = f_n: a backbone k times as wide that computes the same function, by copying its units (`model.widen`).

Every unit is copied k times: x~ = (x, ..., x). Embeddings, biases and norms are repeated; a matrix becomes k x k blocks
W / k; heads are repeated with their own size, and grouped keys and values with them. The head's matrix reads k copies
and is divided by k. Tied output embeddings would count each unit k times, so the norm before them is divided by k.
(HyperCloning, Samragh et al. 2024, 2409.12903; LEMON, Wang et al. 2024, 2310.07999.)

The rates. Let A~ = (A, ..., A) / k and B~ = (B; ...; B), so that W~ x~ + s B~ A~ x~ is k copies of W x + s B A x. With
the gradient d of an output, each of its copies has d / k. Hence
    dL/dB~ = s (d / k) (A x)^T in each copy: dL/dB, divided by k;
    dL/dA~ = s (sum over the copies of B^T d / k) x^T = dL/dA in each copy;
    dL/dW~ of the head's last matrix is dL/dW in each copy, of a hidden one dL/dW / k.
Adam ignores a constant factor of a gradient. B~ must move as B, and A~ and the head's matrices by 1/k of their narrow
move. So (lr_A / k, lr_B), with the head's matrices at lr_head / k and its biases at lr_head, follows (lr_A, lr_B) and
lr_head at width n, step by step: λ at width k n is λ / k at width n. These are the rates of LoRA+'s Theorem 1 (Hayou et
al. 2024, 2402.12354) and of muP (Yang et al. 2021, 2203.03466), on a pretrained model. The init does not enter: with B
random and A zero they are the same. Three things break it. eps: the gradient of B~ is k times smaller, and eps must be
far below it. Clipping: the norm of A's gradient grows by sqrt(k), that of B's falls by as much. Weight decay: lr_A
falls, and the decay of A with it.

With noise x > 0, each matrix that reads copied units also has a random part: N of variance x^2 mean(W^2) / k, less its
mean over the copies of an input. It sums to zero over them, so the function stays, and the copies' gradients differ. At
x = 1 the entries of W~ are as large as those of a matrix of that fan-in, rms(W) / sqrt(k). Rounding makes the copies
differ, and every matrix multiplies their difference by about x: MiniLM's outputs at k = 4 in fp32 change by 2e-6 of
their norm at x = 1, and by 9e-4 at x = 2, which is refused.
"""

import copy
import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loralab.backbones.families import linear_maps
from loralab.backbones.head import prepare_head
from loralab.backbones.shortcuts import TOLERANCE, short_texts
from loralab.backbones.source import Source
from loralab.compat.transformers import conv1d
from loralab.errors import UserError

__all__ = ["SIZES", "widened"]

# Allowed change of the outputs in half precision, relative to their norm. bf16's rounding gives .01 (MiniLM, 6 layers)
# and .03 (SmolLM2, 30 layers) with exact copies, and .02 and .5 with noise 1; in fp32 these are 2e-6 and 9e-6.
HALF_TOLERANCE = 0.1
SIZES = ("hidden_size", "intermediate_size", "n_inner", "num_attention_heads", "num_key_value_heads")
"""The settings of a config that grow with the width; config.attribute_map translates some of them."""


def widened(model: Any, source: Source, *, head: Sequence[str], absent: frozenset[str], seed: int) -> Any:
    """The model `source.widen` times as wide, or `model` itself; its tensors move into the new one, matrix by matrix.

    model: on the CPU, with its head prepared; head, absent, seed: as of `prepare_head`. The tensors of a new head are
    copied, or with noise drawn from `seed` at the full width, where the family's constant variance is divided by k. The
    noise depends on the source, k and the matrix's name. Raises UserError for a width that the machine's memory does
    not hold, and where the outputs are not the same.
    """
    k = source.widen
    if k == 1:
        return model
    with torch.no_grad():
        wanted = _outputs(model.eval(), head)
        wide = _empty(model, k)
        _check_memory(wide, model.dtype, source)
        if not head:
            _divide_last_norm(model, k)
        _move(model, wide, source)
        wide.eval().requires_grad_(False)
        fresh = absent if source.noise else frozenset[str]()
        prepare_head(wide, head, fresh, seed)
        for name, parameter in wide.named_parameters():
            if name in fresh and parameter.ndim == 2:
                parameter.div_(math.sqrt(k))
        found = _outputs(wide, head)
        _check_same(found, wanted.repeat(1, 1, k) if head else wanted, wide.dtype, source)
    return wide


def _empty(model: Any, k: int) -> Any:
    """A model of the wide config without memory for its tensors."""
    config = copy.deepcopy(model.config)
    for name in SIZES:
        if getattr(config, name, None) is not None:
            setattr(config, name, k * getattr(config, name))
    with torch.device("meta"):
        return type(model)(config)


def _divide_last_norm(model: Any, k: int) -> None:
    """Divides the norm before tied output embeddings by k: it is the last module of the base with a vector."""
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        norms = [m for m in model.base_model.modules() if any(p.ndim == 1 for p in m.parameters(recurse=False))]
        for parameter in norms[-1].parameters(recurse=False):
            parameter.div_(k)


def _move(model: Any, wide: Any, source: Source) -> None:
    """Fills `wide` from `model`, whose parameters are released one by one."""
    fused = Counter(each.name for each in linear_maps(model) if each.rows is not None)  # q, k and v in one map
    targets = dict(wide.named_modules())
    tied: dict[int, nn.Parameter] = {}
    for name, module in model.named_modules():
        there = targets[name]
        for leaf, old in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(old) not in tied:
                shape, path = there.get_parameter(leaf).shape, f"{name}.{leaf}"
                new = _wide(old, shape, module, fused.get(name, 1), path, source)
                tied[id(old)] = nn.Parameter(new, requires_grad=False)
                old.data = old.data.new_empty(0)
            there._parameters[leaf] = tied[id(old)]
        there._buffers.update(module._buffers)
        for leaf, value in vars(module).items():
            if isinstance(value, Tensor):  # what a release keeps beside its buffers
                setattr(there, leaf, value)


def _wide(old: Tensor, shape: torch.Size, module: nn.Module, parts: int, name: str, source: Source) -> Tensor:
    """The tensor at the full width; `parts`: the equal blocks of outputs, each of which is copied by itself."""
    if isinstance(module, (nn.Linear, conv1d())) and old.ndim == 2:
        inputs_first = not isinstance(module, nn.Linear)
        narrow, (d_out, d_in) = (old.T, (shape[1], shape[0])) if inputs_first else (old, tuple(shape))
        copies = (d_out // narrow.shape[0], d_in // narrow.shape[1])
        found = _matrix(narrow, copies, parts, source.noise, _seed(source, name))
        return found.T.contiguous() if inputs_first else found
    blocks = old.view(*old.shape[:-1], parts, -1)
    return blocks.repeat([1] * old.ndim + [shape[-1] // old.shape[-1]]).view(shape)


def _matrix(weight: Tensor, copies: tuple[int, int], parts: int, noise: float, seed: int) -> Tensor:
    """Blocks W / k and the noise, of a matrix (out, in) with `copies` of its outputs and of its inputs."""
    out, into = copies
    rows, columns = weight.shape
    found = weight.new_empty(parts, out, rows // parts, into, columns)
    share = (weight.float() / into).view(parts, rows // parts, 1, columns)
    scale = noise * float(weight.float().square().mean().sqrt()) / math.sqrt(into)
    generator = torch.Generator().manual_seed(seed)
    for at in range(out):
        block = share
        if noise and into > 1:
            drawn = torch.randn(parts, rows // parts, into, columns, generator=generator)
            block = share + scale * (drawn - drawn.mean(2, keepdim=True))
        found[:, at] = block
    return found.view(out * rows, into * columns)


def _seed(source: Source, name: str) -> int:
    digest = hashlib.sha256(f"{source.identity} {source.widen} {name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _outputs(model: Any, head: Sequence[str]) -> Tensor:
    """Of two short texts, on the CPU: the last hidden states (b, t, d) under a head, else the logits; 0 at padding."""
    texts = short_texts(model)
    found: Tensor = model.base_model(**texts)[0] if head else model(**texts).logits
    return found.double() * texts["attention_mask"][:, :, None]


def _check_same(found: Tensor, wanted: Tensor, dtype: torch.dtype, source: Source) -> None:
    apart = float((found - wanted).norm() / wanted.norm())
    if apart > TOLERANCE.get(dtype, HALF_TOLERANCE):  # not where it is NaN: the weights are, which is said elsewhere
        remedy = "lower model.widen_noise, or set train.precision=fp32" if source.noise else "choose another backbone"
        raise UserError(
            f"model.widen: got {source.widen}; the outputs of {source.origin}, a {source.family!r} model, change by "
            f"{apart:.2g} of their norm at that width; {remedy}"
        )


def _check_memory(wide: nn.Module, dtype: torch.dtype, source: Source) -> None:
    """Raises UserError where the weights are larger than the machine's memory."""
    needed = sum(p.numel() for p in wide.parameters()) * dtype.itemsize
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"model.widen: got {source.widen}; the weights would take {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB of memory; give less"
        )
