"""The study `best_ratio`: the ratio λ of the four best cells of lr_grid, against four cells drawn at random.

`python analysis/best_ratio.py`: results/best_ratio.csv -> figures/best_ratio.{png,pdf} (LoRA+, Fig 6)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, whole_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "optim.lr", "lora.ratio", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", "validation/loss", "test/accuracy", "commit", "diff"]
TOP = 4
DRAWS = 20_000
METRIC = "test/accuracy"  # as in the paper; the same runs select and are counted: it locates the good region


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run of lr_grid."""
    return tables.runs[KEPT]


def groups(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The cells of the grid by task and init, the best first, each with log2 of its ratio."""
    found = {}
    for (task, init), rows in frame.groupby(["task", "lora.init"]):
        means = rows.groupby(["optim.lr", "lora.ratio"])[METRIC].agg(whole_mean)
        cells = means.reset_index().sort_values(METRIC, ascending=False, kind="stable")  # NaN (diverged) sorts last
        found[str(task), str(init)] = cells.assign(log2=np.log2(cells["lora.ratio"]))
    return found


def top(cells: pd.DataFrame) -> NDArray[np.float64]:
    """log2 of the ratio of the best cells."""
    return cells["log2"].to_numpy()[:TOP]


def null(cells: pd.DataFrame, seed: int = 0) -> NDArray[np.float64]:
    """(draws, 4): log2 of the ratio of cells drawn from the same grid without replacement."""
    random = np.random.default_rng(seed)
    return random.permuted(np.tile(cells["log2"].to_numpy(), (DRAWS, 1)), axis=1)[:, :TOP]


def excess(*settings: pd.DataFrame) -> Interval:
    """Mean log2 ratio of the best cells minus that of the grid, over the settings; interval and p are of the draws."""
    means = np.mean([null(cells, at).mean(axis=1) - cells["log2"].mean() for at, cells in enumerate(settings)], axis=0)
    estimate = float(np.mean([top(cells).mean() - cells["log2"].mean() for cells in settings]))
    low, high = np.quantile(means, [0.025, 0.975])
    p = (1 + np.sum(np.abs(means) >= abs(estimate) - 1e-12)) / (1 + DRAWS)
    return Interval(estimate, float(estimate - high), float(estimate - low), TOP * len(settings), float(p), np.inf)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = groups(frame)
    figure, ax = plt.subplots(figsize=(plotting.SINGLE, 2.7))
    names = ("95% and median of random pairs", f"the {TOP} best pairs, the best leftmost")
    for at, cells in enumerate(found.values()):
        random = 2.0 ** null(cells)[:, 0]
        low, middle, high = np.quantile(random, [0.025, 0.5, 0.975])
        band, dots = names if at == 0 else (None, None)
        ax.fill_between([at - 0.35, at + 0.35], low, high, color="0.87", lw=0, label=band)
        ax.plot([at - 0.35, at + 0.35], [middle, middle], color="0.5", lw=1)
        beside = at + np.linspace(-0.2, 0.2, TOP)
        ax.plot(beside, 2.0 ** top(cells), "o", ms=4.5, color=plotting.COLOURS[0], label=dots)
    ax.axhline(1, color="0.6", lw=0.6, ls=":")
    ax.set_yscale("log", base=4)
    widest = int(max(abs(cells["log2"]).max() for cells in found.values()) // 2)
    powers = range(-widest, widest + 1)
    ax.set_yticks(
        [4.0**power for power in powers], [f"{4**power}" if power >= 0 else f"1/{4**-power}" for power in powers]
    )
    settings = [f"{captions.NAMES.get(task, task)}\ninit {init}".replace(" T", "\nT") for task, init in found]
    ax.set_xticks(range(len(found)), settings)
    ax.set_ylabel("ratio λ = lr$_B$ / lr$_A$")
    figure.legend(loc="outside upper center")
    return figure


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}. Ratios of the {TOP} cells of lr_grid with the best mean test accuracy of "
        f"{captions.seeds(frame)}, and of all its cells, which is what chance gives. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task and init: the geometric mean ratio of the best cells, and that of the grid."""
    rows = []
    for (task, init), cells in groups(frame).items():
        found = excess(cells)
        rows.append(
            {
                "task": task,
                "init": init,
                "best ratios": ", ".join(f"{2.0**each:g}" for each in top(cells)),
                "geometric mean": round(float(2 ** top(cells).mean()), 2),
                "of the grid": round(float(2 ** cells["log2"].mean()), 2),
                "doublings above": f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]",
                "p": round(found.p, 4),
            }
        )
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    claims = [Claim("all settings", excess(*groups(frame).values()), "median 4 to 16, no null given")]
    return [Question("have the best pairs a larger λ than chance gives?", "LoRA+, Fig 6", "doublings", claims)]


if __name__ == "__main__":
    figures.main(__file__)
