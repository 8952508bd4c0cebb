"""`loralab probes`: is B, or A, starved in this run? A table and a figure of what `probe.every` wrote.

delta1 is the change of an adapted map's output that is due to the features, delta2 that due to B, delta3 that due to
both; at efficient rates delta1 and delta2 are of one order (LoRA+, Theorem 1; `loralab.training.probes`). own 1
to 3 are their shares with the map's input held, so that A's own change is separated from that of the layers below.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loralab.config.stored import stored_config
from loralab.errors import UserError
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import curves
from loralab.text import align

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NOTES", "STARVED", "Probed", "as_json", "drawn", "read", "table", "verdict"]

STARVED = 0.05
"""A part with less than this share of the change is starved."""

FEWEST = 3  # updates that changed something: with fewer there is no verdict
NOTES = (
    "medians over the probes; delta1: the features move, delta2: B moves, delta3: both at once (rms over tokens and "
    "units)",
    "share: of the change of the outputs; own: the same with the map's input held, so without the layers below",
    "shares tell who moves the outputs, not whether they move far enough: for that compare delta with another run's",
)
COLUMNS = {
    "delta1": "delta1", "delta2": "delta2", "delta3": "delta3",
    "share1": "share 1", "share2": "share 2", "share3": "share 3", "own1": "own A", "own2": "own B", "own3": "own AB",
    "zA": "|Z_A|", "zB": "|Z_B|", "update_A": "|ΔA|/|A|", "update_B": "|ΔB|/|B|",
}  # fmt: skip
PANELS = {
    "rms over tokens and units": (("delta1", "$\\delta_1$"), ("delta2", "$\\delta_2$"), ("delta3", "$\\delta_3$")),
    "share of $\\Delta Z_B$": (("share1", "$\\delta_1$"), ("share2", "$\\delta_2$"), ("share3", "$\\delta_3$")),
    "share, input held": (("own1", "A"), ("own2", "B"), ("own3", "both")),
    "$\\|\\Delta\\cdot\\|_F\\,/\\,\\|\\cdot\\|_F$ of one update": (("update_A", "A"), ("update_B", "B")),
}
SHARES = ("share of $\\Delta Z_B$", "share, input held")
# Init A starts with B = 0 and init B with A = 0: that factor's relative update is about 1/t at any rate, so that its
# share depends on the rate of the other one.
REMEDIES = {
    ("own2", "A"): "LoRA+ would raise λ, by a lower lr_A",
    ("own2", "B"): "LoRA+ would raise λ, by a higher lr_B",
    ("own1", "A"): "a lower λ, by a higher lr_A, would move them",
    ("own1", "B"): "a lower λ, by a lower lr_B, would move them",
}


@dataclass(frozen=True, eq=False)
class Probed:
    """A run's probes. values: indexed by (map, step), both in the run's order; a column per quantity, NaN for none."""

    name: str
    every: int
    rows: int
    init: str  # A or B, the factor that is random at the start
    values: "pd.DataFrame"

    @property
    def maps(self) -> list[str]:
        return list(dict.fromkeys(self.values.index.get_level_values("map")))

    def over_maps(self, quantity: str) -> "pd.DataFrame":
        """min, median and max over the maps at every step."""
        return self.values[quantity].groupby(level="step", sort=True).agg(["min", "median", "max"])

    def over_time(self) -> "pd.DataFrame":
        """The median over the probes: a row per map, a column per quantity."""
        return self.values.groupby(level="map", sort=False).median()


def read(run: RunDirectory) -> Probed:
    """The probes in the run's metrics.jsonl, also while it trains; UserError where there are none."""
    config = stored_config(run.path / "config.yaml")
    settings = config.probe
    if settings.every is None:
        raise UserError(f"{run.path.name}: trained without probes; train it with probe.every=50")
    long = curves(run.path.parent.parent, [Cell((), {}, "", run.path.name)], "probe")
    if long.empty:
        raise UserError(f"{run.path.name}: has no probe yet; the first one is at step 1, so run its command again")
    long[["map", "quantity"]] = long["name"].str.rsplit("/", n=1, expand=True)
    wide = long.pivot(index=["map", "step"], columns="quantity", values="value")
    values = wide.reindex(long["map"].unique(), level="map")[list(COLUMNS)]
    return Probed(run.path.name, settings.every, settings.rows, config.lora.init, values)


def verdict(probed: Probed) -> str:
    """Whether B or A is starved, in one line.

    own A and own B are the shares of A's and of B's move in the change that both make with the map's input held; each
    is its median over the maps, and of these the median over the probes at which anything moved. B is starved where
    |own B| is below STARVED, and A where |own A| is. With fewer than FEWEST such probes there is no verdict.
    """
    own = {part: probed.over_maps(part)["median"].dropna() for part in ("own1", "own2", "own3")}
    count = len(own["own1"])
    if count < FEWEST:
        return f"too few probes to tell: {count} updates that moved the outputs, {FEWEST} needed; lower probe.every"
    middle = {part: float(values.median()) for part, values in own.items()}
    shares = ", ".join(f"{name} {value:.0%}" for name, value in zip(("A", "B", "both"), middle.values(), strict=True))
    basis = f"median own shares: {shares}; {count} updates, {len(probed.maps)} maps"
    starved = [part for part in ("own1", "own2") if abs(middle[part]) < STARVED]
    remedies = [REMEDIES[part, probed.init] for part in starved]
    if starved == ["own2"]:
        return f"B is starved: A's features move alone, and {remedies[0]} ({basis})"
    if starved == ["own1"]:
        return f"A is starved: B moves on features that stay, and {remedies[0]} ({basis})"
    if starved:
        return f"neither A nor B moves the outputs by itself: the updates are too large to tell ({basis})"
    against = [name for part, name in (("own1", "A"), ("own2", "B")) if middle[part] < 0]
    though = f", though the change goes against {' and '.join(against)}" if against else ""
    return f"neither A nor B is starved{though} ({basis})"


def table(probed: Probed) -> list[str]:
    """One row per map, then their median: medians over the probes."""
    from loralab.inspect.spectrum import short_names

    rows = probed.over_time()
    body = [*rows.to_numpy().tolist(), rows.median().tolist()]
    names = [*short_names(probed.maps), "median"]
    lines = [(name, *map(_cell, row)) for name, row in zip(names, body, strict=True)]
    return align([("map", *COLUMNS.values()), *lines])


def as_json(probed: Probed) -> dict[str, Any]:
    """The verdict, and every value of every probe: map -> quantity -> value by step; what was not finite is null."""
    maps = {
        name: {quantity: [_known(value) for value in column] for quantity, column in probed.values.loc[name].items()}
        for name in probed.maps
    }
    steps = probed.values.index.unique("step").tolist()
    return {"run": probed.name, "verdict": verdict(probed), "steps": steps, "maps": maps}


def drawn(probed: Probed) -> "Figure":
    """delta1 to 3, shares, own shares, and update-to-weight ratios of A and B against the step: medians and ranges."""
    from matplotlib import pyplot

    from loralab import plotting

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(plotting.DOUBLE, 2.1))
    for axes, (kind, lines) in zip(panels, PANELS.items(), strict=True):
        for quantity, label in lines:
            _band(axes, probed.over_maps(quantity), label, log=kind not in SHARES)
        axes.set(xlabel="step", ylabel=kind)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(lines), columnspacing=1, handlelength=1)
        if kind in SHARES:
            axes.axhline(0, color="0.7", lw=0.6, zorder=0)
            axes.axhline(STARVED, color="0.7", lw=0.6, ls=":", zorder=0)
    plotting.heading(
        figure,
        f"{probed.name}: one update in {probed.every}, on {probed.rows} rows of validation. Lines: the median "
        f"over {len(probed.maps)} maps; bands: their range; dotted: {STARVED:.0%}. {_sentence(verdict(probed))}.",
    )
    return figure


def _band(axes: "Axes", over_maps: "pd.DataFrame", label: str, *, log: bool) -> None:
    there = over_maps[over_maps["median"] > 0] if log else over_maps.dropna()
    if there.empty:
        return
    steps = there.index.to_numpy()
    (line,) = axes.plot(steps, there["median"], marker=".", label=label)
    lowest = there["min"].where(there["min"] > 0, there["median"]) if log else there["min"]
    axes.fill_between(steps, lowest, there["max"], color=line.get_color(), alpha=0.15, lw=0)
    if log:
        axes.set_yscale("log")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _known(value: float) -> float | None:
    return None if value != value else value


def _cell(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
