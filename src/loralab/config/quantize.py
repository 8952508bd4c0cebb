"""Which settings go with `model.quantize`; the families are checked with the backbone."""

from loralab.errors import UserError

__all__ = ["MOVED", "check_quantize"]

MOVED = ("full", "intrinsic")  # these train the weights themselves


def check_quantize(kind: str | None, method: str, widen: int) -> None:
    """Raises UserError for a method that trains the weights that would be codes, and for a widened backbone.

    The copies of a unit lie in different blocks, whose scales would tell them apart.
    """
    if kind is not None and method in MOVED:
        raise UserError(
            f"model.quantize: got {kind} with method={method}, which trains the weights themselves, and codes have no "
            "gradient; set it to null, or take method=lora"
        )
    if kind is not None and widen > 1:
        raise UserError(
            f"model.quantize: got {kind} with model.widen={widen}, whose copies would no longer be equal; set "
            "model.quantize=null, or model.widen=1"
        )
