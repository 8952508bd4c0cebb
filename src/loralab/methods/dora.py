"""DoRA: W' = m (W0 + scaling B A) / ||W0 + scaling B A||: LoRA on the direction of each row, with a trained length m.

Liu et al. 2024 (2402.09353), equation 5. A row belongs to one output. m starts at ||W0||, so that W' = W0; the norm
in the denominator is a constant in the gradient (their section 4.3), as in PEFT. `loralab.methods.lora` uses these
modules instead of LoRALinear and LoRAConv1D, on whole maps only.
"""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from loralab.methods.lora_layers import BiasUpdate, Factors, LoRAConv1D, LoRALinear

__all__ = ["DoRAConv1D", "DoRALinear"]


class DoRALinear(LoRALinear):
    """torch.nn.Linear, W0 (d_out, d_in), with one `Factors` and a magnitude m (d_out,), kept in fp32."""

    parameter_roles: ClassVar[dict[str, str]] = {"magnitude": "magnitude"}

    def __init__(self, base: nn.Module, blocks: dict[str, Factors]) -> None:
        super().__init__(base, blocks)
        assert list(blocks) == ["whole"], "a magnitude belongs to a whole row"
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(self._frozen(), dim=1))
        self.norm_at_merge = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        """g (W0 x + scaling B A x) + b with g = m / ||W0 + scaling B A||; dropout acts on all but W0 x itself."""
        y = cast(Tensor, self.base(x))
        if self.merged:
            return y
        gain = self.magnitude / self._norm()
        block = self.factors()["whole"]
        dropped = block.drop(x)
        bias = self._bias()
        if block.dropout > 0 and block.training:
            straight = dropped @ self._by_output(self.weight).T
        else:
            straight = y if bias is None else y - bias.to(y.dtype)
        return y + (gain - 1).to(y.dtype) * straight + gain.to(y.dtype) * block.product(dropped)

    def delta(self) -> Tensor:
        """W' - W0, in the layout of `base.weight`, in fp32."""
        frozen = self._frozen()
        direction = frozen + self.factors()["whole"].delta()
        gain = self.magnitude.detach() / torch.linalg.vector_norm(direction, dim=1)
        return self._by_output(gain[:, None] * direction - frozen).contiguous()

    def merge(self) -> None:
        """W = W', in place; the norm is stored, since W' does not determine it. A second merge does nothing."""
        if not self.merged:
            norm = self._norm()
            super().merge()
            self.norm_at_merge = norm

    def unmerge(self) -> None:
        """W0 = W' ||W0 + scaling B A|| / m - scaling B A, exact up to rounding if no m is 0."""
        if self.merged:
            frozen = self._by_output(self._frozen())
            with torch.no_grad():
                self.weight.copy_(frozen.to(self.weight.dtype))
            self.merged = False

    def _frozen(self) -> Tensor:
        """W0 (d_out, d_in) in fp32, also if it is merged."""
        weight = self._by_output(self.weight).detach().float()
        if not self.merged:
            return weight
        gain = self.magnitude.detach() / self.norm_at_merge
        return weight / gain[:, None] - self.factors()["whole"].delta()

    def _norm(self) -> Tensor:
        """||W0 + scaling B A|| of each row (d_out,), without a gradient."""
        direction = self._frozen() + self.factors()["whole"].delta()
        return cast(Tensor, torch.linalg.vector_norm(direction, dim=1))

    def _bias(self) -> Tensor | None:
        """The bias of the base plus its trained update."""
        frozen = cast("Tensor | None", self.base.bias)
        if frozen is None or "bias_update" not in self.base._modules:
            return frozen
        return frozen.float() + cast(BiasUpdate, self.base.bias_update).b


class DoRAConv1D(DoRALinear, LoRAConv1D):
    """DoRA of transformers' Conv1D, which stores its weight as (d_in, d_out)."""
