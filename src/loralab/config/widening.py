"""Which settings go with `model.widen` and `model.widen_noise`; the families are checked with the backbone."""

from loralab.errors import UserError

__all__ = ["check_widening"]

COPIED = ("lora", "head", "full", "bitfit")  # methods whose start is the backbone's, or is drawn narrow and copied


def check_widening(widen: int, noise: float, method: str) -> None:
    """Raises UserError for noise on a single copy, and for a method that draws its start at the full width.

    Such a start would tell apart the copies, which without noise train as one.
    """
    if widen == 1 and noise:
        raise UserError(
            f"model.widen_noise: got {noise:g} with model.widen=1; noise sums to zero over the copies of a unit, and "
            "there is one; set model.widen=2 or more, or model.widen_noise=0"
        )
    if widen > 1 and not noise and method not in COPIED:
        raise UserError(
            f"model.widen: got {widen} without noise, for exact copies, and method={method} draws its start at the "
            f"full width; set model.widen_noise, e.g. 1, or take one of {', '.join(COPIED)}"
        )
