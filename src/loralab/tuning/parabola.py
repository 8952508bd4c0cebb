"""Parabola in log lr through three points: its vertex and its curvature."""

from typing import NamedTuple

__all__ = ["Parabola", "parabola"]


class Parabola(NamedTuple):
    """loss = lowest + curvature (x - at)^2."""

    at: float
    curvature: float
    lowest: float

    def half_width(self, rise: float) -> float:
        """The distance from the vertex at which the loss has risen by `rise`."""
        return float((max(rise, 0.0) / self.curvature) ** 0.5)


def parabola(points: dict[float, float]) -> Parabola | None:
    """The parabola through three points, x -> loss; None where it does not curve upward."""
    (p, f), (q, g), (r, h) = sorted(points.items())
    slope = (g - f) / (q - p)
    curvature = ((h - g) / (r - q) - slope) / (r - p)
    if not curvature > 0:
        return None
    at = (p + q) / 2 - slope / (2 * curvature)
    return Parabola(at, curvature, f - curvature * (p - at) ** 2)
