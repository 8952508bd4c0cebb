"""A forest: the gain of each arm over one base arm in each setting, and pooled over the settings below."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from loralab import plotting
from loralab.studies import captions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from loralab.studies.pooled import Pooled

__all__ = ["forest"]

POOLED = "all, pooled"
APART = 0.7  # of a row's height: the share that the marks of its arms are spread over


def forest(
    ax: "Axes",
    gains: Mapping[str, "Pooled"],
    *,
    unit: float = 1.0,
    margin: float | None = None,
    claimed: tuple[float, float] | None = None,
) -> None:
    """A row for each setting, the first on top, and one for `effect`; by arm, a mark with its 95% interval.

    unit: of the axis, 0.01 for points; margin: the half-width of the grey band, within which a difference counts as
    none; claimed: the ends of the band of what a paper reports. Both in the unit of the scores. No bar without an
    interval.
    """
    settings = list(dict.fromkeys(name for gain in gains.values() for name in gain.settings))
    rows = [*settings, None]
    if claimed is not None:
        ax.axvspan(claimed[0] / unit, claimed[1] / unit, color=plotting.COLOURS[4], alpha=0.22, lw=0, zorder=0)
    if margin is not None:
        ax.axvspan(-margin / unit, margin / unit, color="0.9", lw=0, zorder=0)
    ax.axvline(0, color="0.3", lw=0.8, zorder=1)
    ax.axhline(len(settings) - 0.5, color="0.3", lw=0.8)
    for at, (arm, gain) in enumerate(gains.items()):
        shift = APART * (at + 0.5 - len(gains) / 2) / len(gains)
        for row, name in enumerate(rows):
            found = gain.effect if name is None else gain.settings.get(name)
            if found is None:
                continue
            mark, size, label = ("D", 5, arm) if name is None else ("o", 4, None)
            colour = plotting.COLOURS[at]
            ax.plot([found.low / unit, found.high / unit], [row + shift] * 2, color=colour, lw=1.6)
            ax.plot(found.estimate / unit, row + shift, color=colour, ls="", label=label, marker=mark, ms=size)
    ax.set_yticks(range(len(rows)), [POOLED if name is None else title(name) for name in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def title(setting: tuple[object, ...]) -> str:
    """`Rotten Tomatoes, A`."""
    return ", ".join(captions.NAMES.get(str(part), str(part)) for part in setting)
