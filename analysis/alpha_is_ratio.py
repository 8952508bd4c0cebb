"""The study `alpha_is_ratio`: runs of equal s λ, s = alpha/r, at equal lr_A are one run; what makes them part.

`python analysis/alpha_is_ratio.py`: results/alpha_is_ratio.csv -> figures/alpha_is_ratio.{png,pdf}
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

OPTIM = ["optim.lr", "optim.weight_decay", "optim.eps", "optim.clip"]
AXES = ["seed", "task", "lora.init", "lora.ratio", *OPTIM, *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", "validation/loss", "test/loss", "losses", "seconds", "commit", "diff"]
EQUAL = 1e-3  # nats; training losses this close at every step are called equal: the margin of the study's claims
USUAL_EPS = 1e-5  # Adam's eps below it has no effect of its own
EXACT = 1e-8  # differences below it, also 0, are shown as this: a tenth of fp32's rounding of a loss near 1

PLAIN, DECAY, EPS, CLIP, MIRROR, B_LINE = (
    "init A",
    "weight decay 0.1",
    "eps 1e-4",
    "clipping at norm 1",
    "init B, equal s lr$_A$, lr$_B$",
    "init B, equal s λ and lr$_A$",
)
EXPECTED = {  # whether the runs of a line should coincide, and the arm's name in the claims
    PLAIN: (True, "init A, equal s λ and lr_A"),
    MIRROR: (True, "init B, equal s lr_A and lr_B"),
    B_LINE: (False, "init B"),
    DECAY: (False, "weight decay .1"),
    EPS: (False, "Adam's eps at 1e-4"),
    CLIP: (False, "the gradient clipped at norm 1"),
}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; losses: the training loss of each step from the first, separated by blanks."""
    logged = tables.curves
    train = logged[(logged["split"] == "train") & (logged["name"] == "loss")].sort_values("step")
    texts = train.groupby("run")["value"].agg(lambda values: " ".join(f"{value:.9g}" for value in values))
    return tables.runs.assign(losses=tables.runs["run"].map(texts))[KEPT]


def with_scaling(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs with their scaling s = alpha/r and s λ."""
    s = frame["lora.alpha"] / frame["lora.rank"]
    return frame.assign(s=s, product=s * frame["lora.ratio"])


def plane(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of init A in which nothing but s and λ varies."""
    runs = with_scaling(frame)
    plain = (runs["optim.weight_decay"] == 0) & (runs["optim.eps"] < USUAL_EPS) & runs["optim.clip"].isna()
    return runs[plain & (runs["lora.init"] == "A")]


def lines(frame: pd.DataFrame) -> dict[str, list[pd.DataFrame]]:
    """By kind, each set of two runs or more that differ only in how s λ (or its mirror) is split; s ascending."""
    runs = with_scaling(frame)
    b = runs[runs["lora.init"] == "B"]
    mirror = b.assign(a=b["s"] * b["optim.lr"], b=b["lora.ratio"] * b["optim.lr"]).round(12)
    kinds: dict[str, tuple[pd.DataFrame, list[str]]] = {
        PLAIN: (plane(frame), ["product"]),
        MIRROR: (mirror, ["a", "b"]),
        B_LINE: (b, ["product", "optim.lr"]),
        DECAY: (runs[runs["optim.weight_decay"] > 0], ["product"]),
        EPS: (runs[runs["optim.eps"] >= USUAL_EPS], ["product"]),
        CLIP: (runs[runs["optim.clip"].notna()], ["product"]),
    }
    return {
        kind: [line.sort_values("s") for _, line in own.groupby(by) if len(line) > 1]
        for kind, (own, by) in kinds.items()
    }


def losses(text: str) -> NDArray[np.float64]:
    return np.array(text.split(), dtype=float)


def differences(line: pd.DataFrame) -> NDArray[np.float64]:
    """(runs - 1, steps): |training loss - that of the line's run with s nearest to 1|; NaN for a run that diverged."""
    base = int(np.abs(np.log2(line["s"].to_numpy(dtype=float))).argmin())
    curves = [losses(text) for text in line["losses"]]
    whole = [len(curve) == max(map(len, curves)) for curve in curves]
    others = [curve if ok else np.full_like(curves[base], np.nan) for curve, ok in zip(curves, whole, strict=True)]
    apart: NDArray[np.float64] = np.abs(np.stack([each for at, each in enumerate(others) if at != base]) - curves[base])
    return apart


def largest(found: list[pd.DataFrame]) -> NDArray[np.float64]:
    """For each pair of runs of the lines, log10 of the largest difference over the steps, at least log10 of EXACT."""
    apart = np.concatenate([differences(line).max(axis=1) for line in found])
    logs: NDArray[np.float64] = np.log10(np.maximum(apart, EXACT))
    return logs


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = lines(frame)
    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 3.1), width_ratios=(1.1, 1, 1))
    _plane(axes[0], plane(frame))
    _curves(axes[1], found[PLAIN])
    _differences(axes[2], found)
    rate = f"lr$_A$ = {plotting.short(plane(frame)['optim.lr'].iloc[0])}"
    titles = (f"a) validation loss at {rate}:\nsame at equal s λ", "b) training loss", "c) difference from s = 1")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    figure.legend(
        *axes[2].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=4,
        title="c) pairs of runs that differ in s (solid: predicted equal; dashed: predicted not):",
        alignment="left",
    )
    return figure


def _plane(ax: "Axes", runs: pd.DataFrame) -> None:
    """Validation loss at the last step over s and λ; cells of equal s λ lie on falling diagonals."""
    table = runs.pivot(index="lora.ratio", columns="s", values="validation/loss").sort_index()
    values = table.to_numpy(dtype=float)
    ax.imshow(values, origin="lower", cmap="cividis_r", aspect="auto")
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.4f}", ha="center", va="center", color="w" if value > middle else "k")
    ax.set_xticks(range(len(table.columns)), [plotting.short(s) for s in table.columns.to_numpy(dtype=float)])
    ax.set_yticks(range(len(table.index)), [plotting.short(ratio) for ratio in table.index])
    ax.set_xlabel("s = alpha / r")
    ax.set_ylabel("ratio λ")


def _curves(ax: "Axes", found: list[pd.DataFrame]) -> None:
    """The runs of one s λ in one colour, thick to thin; s λ stands beside the end of the lines."""
    import matplotlib as mpl

    lowest = np.inf  # of the labels
    for line, shade in zip(found, np.linspace(0, 0.85, len(found)), strict=True):
        colour = mpl.colormaps["viridis"](shade)
        for width, text in zip(np.linspace(4.5, 0.8, len(line)), line["losses"], strict=True):
            curve = losses(text)
            ax.plot(np.arange(1, len(curve) + 1), curve, color=colour, lw=width, alpha=0.45)
        lowest = min(lowest - 0.12, float(curve[-1]))
        ax.text(1.02 * len(curve), lowest, plotting.short(line["product"].iloc[0]), color=colour, va="center")
    ax.set_xlabel("step")
    ax.set_title("s λ", loc="right")


def _differences(ax: "Axes", found: dict[str, list[pd.DataFrame]]) -> None:
    """The largest difference over a kind's pairs at each step."""
    for at, (kind, own) in enumerate(found.items()):
        if not own:
            continue
        apart = np.maximum(np.concatenate([differences(line) for line in own]).max(axis=0), EXACT)
        style = "-" if EXPECTED[kind][0] else "--"
        ax.plot(np.arange(1, len(apart) + 1), apart, style, color=plotting.COLOURS[at], label=kind, lw=1.4)
    ax.axhline(EQUAL, color="0.4", lw=0.8, ls=":", label=f"counts as equal: {EQUAL:g}")
    ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="|Δ training loss| (nats)")


def caption(frame: pd.DataFrame) -> str:
    settings = f"{captions.tasks(frame)}, {captions.setting(frame)}, fp32, {captions.seeds(frame)}"
    return (
        f"{settings}. b: thick to thin lines are the runs of one s λ. c: training losses of equal s λ and lr_A; no "
        f"decay or clipping unless named. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per line: its runs, the range of the final validation losses, and the largest difference."""
    rows = []
    for kind, found in lines(frame).items():
        for line in found:
            row: dict[str, Any] = {"kind": kind.replace("$", ""), "s λ": plotting.short(line["product"].iloc[0])}
            row |= {"lr_A": line["optim.lr"].iloc[0], "s": ", ".join(plotting.short(s) for s in line["s"])}
            ends = line["validation/loss"]
            row |= {"validation loss": round(ends.mean(), 4), "its range": f"{ends.max() - ends.min():.1e}"}
            rows.append(row | {"largest difference in training loss": f"{10 ** largest([line]).max():.1e}"})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The largest difference over the steps, of the pair most apart; of the least apart, where runs should part.

    The runs are deterministic: an interval has zero width.
    """
    claims: dict[bool, list[Claim]] = {True: [], False: []}
    for kind, found in lines(frame).items():
        if found:
            same, arm = EXPECTED[kind]
            apart = 10 ** largest(found)
            value = float(apart.max() if same else apart.min())
            number = 0.0 if same else None
            claims[same].append(Claim(arm, Interval(value, value, value, len(apart), np.nan), "none", number, same))
    text = {
        True: "which splits of s, λ and the rates are one run?",
        False: "what makes runs of equal s λ and lr_A part?",
    }
    source = "in no paper (Adam ignores a gradient's scale)"
    return [Question(text[same], source, "nats", own) for same, own in claims.items() if own]


if __name__ == "__main__":
    figures.main(__file__)
