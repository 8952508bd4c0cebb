"""The figure of a session: validation loss against the learning rate, one colour for each λ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab import plotting
from loralab.plotting import COLOURS
from loralab.tuning.tuned import Tuned, rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

WIDTH, HEIGHT = 5.2, 3.2  # inches
RING: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 1.5, "markersize": 7}
MOST_TICKS, LEAST_FACTOR = 5, 1.9  # labels of the axis, and the least factor between two
ROOM = 0.25  # of the losses' range, above the worst that is drawn at its value
WORST = 3.0  # a loss further above the best than this many times the middle one is drawn at the upper edge


def draw(tuned: Tuned, to: Path | None = None) -> Path:
    """Writes the figure, beside tune.yaml by default, as PNG and PDF; gives the PNG.

    Filled: run to the end; hollow: paused at the share beside it; a triangle at the upper edge: diverged, failed or far
    above the best.
    """
    from matplotlib import pyplot

    with plotting.style():
        figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT))
        _points(axes, tuned)
        _marks(axes, tuned)
        axes.set(xscale="log", xlabel="learning rate", ylabel="validation loss")
        _ticks(axes, [run["optim.lr"] for run in tuned.runs])
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        return plotting.save(figure, to or tuned.figure)[0]


def _points(axes: "Axes", tuned: Tuned) -> None:
    good = [run["loss"] for run in tuned.runs if _is_sound(run)]
    best, middle = min(good), sorted(good)[len(good) // 2]
    highest = max(loss for loss in good if loss <= best + WORST * max(middle - best, 0.05 * best))
    top = highest + ROOM * max(highest - best, 0.02 * abs(best))
    for colour, ratio in zip(COLOURS, _ratios(tuned.runs), strict=False):
        for run in tuned.runs:
            if run.get("lora.ratio") != ratio:
                continue
            shown = _is_sound(run) and run["loss"] <= highest
            ended = run["status"] == "success"
            is_best = all(run[key] == value for key, value in tuned.settings.items())
            axes.plot(
                run["optim.lr"], run["loss"] if shown else top, "o" if shown else "^", color=colour,
                markerfacecolor=colour if ended else "white", clip_on=False, zorder=3,
                **(RING if is_best else {"markersize": 5}),
            )  # fmt: skip
            if not ended:
                axes.annotate(
                    f"{run['share']:.0%}", (run["optim.lr"], run["loss"] if shown else top), color="0.35",
                    xytext=(5, 2), textcoords="offset points",
                )  # fmt: skip
        if ratio is not None:
            axes.plot([], [], "o", color=colour, markersize=5, label=f"λ = {ratio:g}")
    axes.set_ylim(top=top)


def _marks(axes: "Axes", tuned: Tuned) -> None:
    if tuned.plateau is not None:
        low, high = tuned.plateau
        edge = 2**0.25 if low == high else 1.0  # one rate is a band too
        axes.axvspan(low / edge, high * edge, color="0.92", zorder=0, label="within noise")
    ratios = _ratios(tuned.runs)
    for i, predicted in enumerate(tuned.predicted):
        ratio = predicted.get("lora.ratio")
        colour = COLOURS[ratios.index(ratio)] if len(ratios) > 1 and ratio in ratios else "0.35"
        axes.axvline(predicted["optim.lr"], color=colour, ls="--", lw=1, zorder=1, label=None if i else "the law")
    kinds = (("o", "0.2", "run to the end"), ("o", "white", "stopped at"), ("^", "white", "above, diverged"))
    for marker, face, label in kinds:
        axes.plot([], [], marker, color="0.2", markerfacecolor=face, markersize=5, label=label)
    axes.plot([], [], "o", color="0.2", label="recommended", **RING)


def _ticks(axes: "Axes", rates: Sequence[float]) -> None:
    """Rates that were tried, far enough apart for their labels."""
    apart = max(LEAST_FACTOR, (max(rates) / min(rates)) ** (1 / MOST_TICKS))
    places: list[float] = []
    for place in sorted(rates):
        if not places or place >= places[-1] * apart:
            places.append(place)
    axes.set_xticks(places, [rate(place) for place in places])
    axes.minorticks_off()
    axes.set_xlim(min(rates) / 1.4, max(rates) * 1.4)


def _ratios(runs: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return sorted(dict.fromkeys(run.get("lora.ratio") for run in runs), key=lambda ratio: ratio or 0.0)


def _is_sound(run: Mapping[str, Any]) -> bool:
    return run["status"] in ("success", "paused") and run["loss"] is not None
