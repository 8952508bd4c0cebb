"""The LoRA factors A and B, and the three modules that add scaling * B A to a frozen map.

LoRA (Hu et al. 2021), section 4.1: h = W0 x + (alpha / r) B A x, with W0 frozen. A and B stay in fp32
whatever precision the frozen map has; their products run in the precision of the activations.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from loralab.backbones.quantise import dequantise_maps
from loralab.methods.targets import embedding_scale

__all__ = ["BiasUpdate", "Factors", "LoRAConv1D", "LoRAEmbedding", "LoRALinear", "LoRAModule", "Rows"]

Rows = slice | tuple[int, ...]
"""The outputs of a fused projection that an update changes: a contiguous block, or their indices."""

ALL_ROWS = slice(None)


class Factors(nn.Module):
    """One update: delta W = scaling * B A, with A (r, d_in), B (d_out, r) and d_out = the number of `rows`.

    copies: of each unit of the frozen map; the factors start as copies too (loralab.backbones.widen).
    """

    parameter_roles: ClassVar[dict[str, str]] = {"A": "A", "B": "B"}
    rows_index: Tensor

    def __init__(
        self, d_in: int, d_out: int, *, rank: int, scaling: float, dropout: float, rows: Rows, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies = copies
        self.A = nn.Parameter(torch.zeros(rank, d_in))
        self.B = nn.Parameter(torch.zeros(d_out, rank))
        self.scaling = scaling
        self.dropout = dropout
        self.rows = rows
        index = rows if isinstance(rows, tuple) else ()
        self.register_buffer("rows_index", torch.tensor(index, dtype=torch.long), persistent=False)

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def reset(
        self, *, init: Literal["A", "B"], dist: Literal["kaiming", "gaussian"], generator: torch.Generator
    ) -> None:
        """Draws the random factor (`init`) and zeroes the other, so that delta W = 0.

        kaiming (loralib, PEFT): A ~ U(-1/sqrt(d_in), 1/sqrt(d_in)) or B ~ U(-1/sqrt(r), 1/sqrt(r)).
        gaussian (the papers' text): A ~ N(0, 1/d_in) or B ~ N(0, 1/r). Copies: drawn for one copy of the units; A is
        repeated and divided by their number, B repeated.
        """
        (random, zero), axis = ((self.A, self.B), 1) if init == "A" else ((self.B, self.A), 0)
        shape, repeats = list(random.shape), [1, 1]
        shape[axis], repeats[axis] = shape[axis] // self.copies, self.copies
        scale = 1 / math.sqrt(shape[1])
        drawn = torch.empty(shape)
        if dist == "kaiming":
            drawn.uniform_(-scale, scale, generator=generator)
        else:
            drawn.normal_(0.0, scale, generator=generator)
        with torch.no_grad():
            random.copy_(drawn.repeat(repeats) / repeats[1])
            zero.zero_()

    def delta(self) -> Tensor:
        """scaling * B A, (d_out, d_in), in fp32."""
        return self.scaling * (self.B.detach() @ self.A.detach())

    def update(self, x: Tensor) -> Tensor:
        """scaling * B A x for x (..., d_in), in x's precision: (..., d_out)."""
        return self.product(self.drop(x))

    def drop(self, x: Tensor) -> Tensor:
        """x with dropout, in training."""
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout > 0 else x

    def product(self, x: Tensor) -> Tensor:
        """scaling * B A x without dropout."""
        return nn.functional.linear(nn.functional.linear(x, self.A.to(x.dtype)), (self.scaling * self.B).to(x.dtype))

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y with the update of its `rows` added."""
        update = self.update(x)
        if isinstance(self.rows, tuple):
            return y.index_add(-1, self.rows_index, update)
        if self.rows == ALL_ROWS:
            return y + update
        start, stop = self.rows.start, self.rows.stop
        return y + nn.functional.pad(update, (start, y.shape[-1] - stop))


class EmbeddingFactors(Factors):
    """The factors of a lookup table: the input is one-hot, so the roles of the two initialisations are reversed."""

    parameter_roles: ClassVar[dict[str, str]] = {"A": "embedding", "B": "embedding"}

    def reset(
        self, *, init: Literal["A", "B"], dist: Literal["kaiming", "gaussian"], generator: torch.Generator
    ) -> None:
        """init A (loralib, PEFT): A = 0 and B random; init B: B = 0 and A random.

        kaiming draws N(0, 1), as loralib and PEFT do; gaussian draws B ~ N(0, 1/r), and A ~ N(0, 1), since a lookup
        reads one entry of each row of A (a fan-in of one).
        """
        random, zero = (self.B, self.A) if init == "A" else (self.A, self.B)
        scale = 1 / math.sqrt(self.rank) if dist == "gaussian" and init == "A" else 1.0
        with torch.no_grad():
            random.copy_(torch.empty(random.shape).normal_(0.0, scale, generator=generator))
            zero.zero_()

    def update(self, x: Tensor) -> Tensor:
        """scaling * B A e_x for token ids x (...): (..., d_out), in fp32."""
        return nn.functional.linear(nn.functional.embedding(x, self.A.T), self.scaling * self.B)


class LoRAModule(nn.Module):
    """A frozen map with its updates; `base` is the frozen map, and `blocks` holds one `Factors` per block of rows."""

    def __init__(self, base: nn.Module, blocks: dict[str, Factors]) -> None:
        super().__init__()
        self.base = base
        self.blocks = nn.ModuleDict(blocks)
        self.merged = False

    def factors(self) -> dict[str, Factors]:
        """Block name -> its factors; the one block of an unfused map is called `whole`."""
        return {name: cast(Factors, block) for name, block in self.blocks.items()}

    @property
    def weight(self) -> Tensor:
        """The frozen weight; some models read its dtype (T5's `wo`)."""
        return cast(Tensor, self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias; some models read it (Jamba's `dt_proj`)."""
        return cast("Tensor | None", self.base.bias)

    @property
    def d_out(self) -> int:
        return self._by_output(self.weight).shape[0]

    def delta(self) -> Tensor:
        """The whole update in the layout of `base.weight`, in fp32."""
        weight = self._by_output(torch.zeros_like(cast(Tensor, self.base.weight), dtype=torch.float32))
        for block in self.factors().values():
            rows = block.rows_index if isinstance(block.rows, tuple) else block.rows
            weight[rows] += block.delta()
        return self._by_output(weight)

    def merge(self) -> None:
        """W = W0 + scaling B A, in place (LoRA, section 4.1: no added latency). A second merge does nothing."""
        if not self.merged:
            self._shift(self.delta())
            self.merged = True

    def unmerge(self) -> None:
        """Removes the merged update, exact up to rounding in the weight's precision."""
        if self.merged:
            self._shift(-self.delta())
            self.merged = False

    def _shift(self, delta: Tensor) -> None:
        dequantise_maps(self.base)  # codes hold no sums
        weight = cast(Tensor, self.base.weight)
        with torch.no_grad():
            weight.copy_((weight.float() + delta).to(weight.dtype))

    @staticmethod
    def _by_output(weight: Tensor) -> Tensor:
        """A view of a weight-shaped tensor with the outputs first (its own inverse)."""
        return weight


class LoRALinear(LoRAModule):
    """torch.nn.Linear, W0 (d_out, d_in), with its updates."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if not self.merged:
            for block in self.blocks.values():
                y = cast(Factors, block).add_to(y, x)
        return cast(Tensor, y)


class LoRAConv1D(LoRALinear):
    """transformers' Conv1D (GPT-2), a linear map that stores its weight as (d_in, d_out)."""

    @staticmethod
    def _by_output(weight: Tensor) -> Tensor:
        return weight.T


class LoRAEmbedding(LoRAModule):
    """torch.nn.Embedding, a table (tokens, d_out), with its update: A (r, tokens), B (d_out, r).

    A subclass that multiplies the rows by a scale (BART, Gemma) multiplies their update too, as in PEFT.
    """

    def forward(self, ids: Tensor) -> Tensor:
        y = self.base(ids)
        if not self.merged:
            for block in self.blocks.values():
                update = cast(Factors, block).update(ids) * embedding_scale(self.base)
                y = y + update.to(y.dtype)
        return cast(Tensor, y)

    @staticmethod
    def _by_output(weight: Tensor) -> Tensor:
        return weight.T


class BiasUpdate(nn.Module):
    """A trained addition to a frozen bias, kept in fp32: y + b, with b = 0 at the start.

    Training b with b0 frozen is equivalent to training the bias b0 + b, and works in any precision of the backbone.
    """

    def __init__(self, d_out: int, *, role: Literal["bias", "norm"]) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(d_out))
        self.parameter_roles = {"b": role}

    def forward(self, _host: nn.Module, _inputs: Sequence[object], y: Tensor) -> Tensor:
        """y + b; a forward hook, called with the host module, its inputs and its output."""
        return y + self.b.to(y.dtype)
