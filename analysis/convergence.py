"""The study `convergence`: accuracy and loss against the step, and the speed-up of each ratio λ over λ = 1.

`python analysis/convergence.py`: results/convergence.csv -> figures/convergence.{png,pdf} (LoRA+, Fig 7)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.errors import UserError
from loralab.studies import captions, figures
from loralab.studies.claims import Claim
from loralab.studies.intervals import LINES, band, forest
from loralab.studies.registered_speed import registered_speedup
from loralab.studies.stats import Interval, crossing, speedup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "task.eval_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
CURVES = {("validation", "accuracy"): "validation/accuracy", ("train", "loss"): "train/loss"}
KEPT = ["hash", "stage", *AXES, "status", "step", *CURVES.values(), "seconds", "commit", "diff"]
Runs = dict[float, list[pd.DataFrame]]
"""By ratio, each seed's rows in the order of the steps."""

SHARES = (0.5, 0.8, 0.9, 0.95, 1.0)  # shares of the gain of λ = 1 over its step 0
CLAIMED = 0.95
ADVICE = 16
SHOWN = (1, 4, 16)  # λ of the curves
ACCURACY = "validation/accuracy"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run and evaluation: accuracy, mean training loss since the last one, seconds since the start."""
    runs = tables.runs[["run", "hash", "stage", *AXES, "status", "commit", "diff"]]
    logged = tables.curves
    values = {
        name: logged[(logged["split"] == split) & (logged["name"] == metric)].set_index(["run", "step"])["value"]
        for (split, metric), name in CURVES.items()
    }
    times = logged[logged["split"] == "validation"].groupby(["run", "step"])["seconds"].max()
    curves = pd.DataFrame(values | {"seconds": times}).reset_index()
    curves = curves[curves[ACCURACY].notna()]
    return runs.merge(curves, on="run", how="left")[KEPT]


def split_runs(rows: pd.DataFrame) -> Runs:
    """The runs of one task; UserError if a run that did not diverge lacks a step that others have."""
    steps = set(rows["step"].dropna())
    found: Runs = {}
    for _, run in rows.sort_values(["lora.ratio", "seed", "step"]).groupby(["lora.ratio", "seed"]):
        first, absent = run.iloc[0], sorted(steps - set(run["step"]))
        if absent and not _diverged(run):
            cell = f"task={first['task']} seed={first['seed']} lora.ratio={first['lora.ratio']:g}"
            raise UserError(f"no row for {cell} step={absent[0]:g}; `loralab collect convergence` makes the CSV anew")
        found.setdefault(float(first["lora.ratio"]), []).append(run)
    return found


def _diverged(run: pd.DataFrame) -> bool:
    return bool((run["status"] == "diverged").any())


def target(runs: Runs, share: float) -> float:
    """The accuracy at a share of λ = 1's mean gain from training; NaN if it gains nothing.

    The gain is a mean over the seeds, so single seeds of λ = 1 end above and below the mean. NaN if one diverged.
    """
    ends = np.array([run[ACCURACY].to_numpy(dtype=float)[[0, -1]] for run in runs[1.0]])
    first, last = ends.mean(axis=0)
    diverged = any(_diverged(run) for run in runs[1.0])
    return np.nan if diverged or not last > first else float(first + share * (last - first))


def crossings(runs: Runs, share: float, unit: str = "step") -> dict[float, list[float]]:
    """By ratio, for each seed, when the accuracy reaches the `target` and stays there; inf: never.

    A run that diverges never reaches it. A run that starts above the target reaches it at its first evaluation after
    step 0. unit: step or seconds.
    """
    level = target(runs, share)

    def reached(run: pd.DataFrame) -> float:
        if _diverged(run) or np.isnan(level):
            return np.inf
        trained = run[run["step"] > 0]
        return crossing(trained[unit], trained[ACCURACY], level)

    return {ratio: [reached(run) for run in arm] for ratio, arm in runs.items()}


def sooner(runs: Runs, ratio: float, share: float, unit: str = "step") -> Interval:
    """Speed-up of a ratio over λ = 1, paired by seed; above 1: the ratio is faster.

    A run that never reached the target may have reached it right after its end; a diverged run never does.
    """
    found = crossings({each: runs[each] for each in (1.0, ratio)}, share, unit)
    ends = [[np.inf if _diverged(run) else float(run[unit].max()) for run in runs[each]] for each in found]
    return speedup(found[1.0], found[ratio], horizon=ends)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    tasks = sorted(frame["task"].unique())
    size = (plotting.DOUBLE, 2.2 * len(tasks) + 0.3)
    figure, axes = plt.subplots(len(tasks), 3, figsize=size, squeeze=False, width_ratios=(1, 1, 0.9))
    for row, task in zip(axes, tasks, strict=True):
        rows = frame[frame["task"] == task]
        for ax, metric, title in zip(row, (ACCURACY, "train/loss"), ("accuracy", "training loss"), strict=False):
            _curves(ax, rows, metric)
            ax.set_xlabel("step")
            ax.set_ylabel(title)
        row[0].set_title(captions.NAMES.get(task, task))
        _speedups(row[2], split_runs(rows))
        row[2].set_title("times sooner than λ = 1")
    curves, claim = (axes[0][at].get_legend_handles_labels() for at in (0, 2))
    figure.legend(
        *(first + second for first, second in zip(curves, claim, strict=True)), loc="outside upper left", ncols=4
    )
    return figure


def _curves(ax: "Axes", rows: pd.DataFrame, metric: str) -> None:
    """λ of `SHOWN`: the mean over the seeds, with its interval, up to the step where a seed diverges."""
    for ratio, colour in zip(SHOWN, LINES, strict=False):
        of = rows[rows["lora.ratio"] == ratio].pivot(index="step", columns="seed", values=metric).dropna()
        band(ax, of, colour, f"λ = {ratio:g}")


def _speedups(ax: "Axes", runs: Runs) -> None:
    """The registered speed-up in steps of each λ."""
    others = [ratio for ratio in runs if ratio != 1]
    found = [registered(runs, ratio) for ratio in others]
    forest(
        ax, [f"λ = {ratio:g}" for ratio in others], {"": found}, null=1.0, claimed=("LoRA+ claims 2 times", 2.0, 2.0)
    )
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, [0.5, 1, 2])
    ax.set_xlim(0.35, 2.9)


def registered(runs: Runs, ratio: float) -> Interval:
    """The registered speed-up of a ratio over λ = 1, by accuracy against the step."""
    base, other = ([list(zip(run["step"], run[ACCURACY], strict=True)) for run in runs[each]] for each in (1.0, ratio))
    start = float(np.mean([curve[0][1] for curve in base]))
    return registered_speedup(base, other, start=start)


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}, each λ at the rate that `ratio` "
        f"selected. Mean and 95% of {captions.seeds(frame)} (Student t). Right: the factor in steps that lays the "
        f"accuracy of λ = 1 on that of λ, over 30 to 90% of the gain. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, ratio and share: the speed-up in steps and in seconds, and how many seeds never reached it."""
    rows = []
    for task, of in frame.groupby("task"):
        runs = split_runs(of)
        reached = {share: crossings(runs, share) for share in SHARES}
        for ratio in (ratio for ratio in runs if ratio != 1):
            for share in SHARES:
                steps, seconds = sooner(runs, ratio, share), sooner(runs, ratio, share, "seconds")
                never = int(np.isinf(reached[share][ratio]).sum())
                rows.append(
                    {
                        "task": task,
                        "ratio": ratio,
                        "share": f"{share:.0%}",
                        "sooner, steps": _text(steps),
                        "sooner, seconds": _text(seconds),
                        "never": f"{never} of {steps.n}",
                    }
                )
    return pd.DataFrame(rows)


def _text(found: Interval) -> str:
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def claims(frame: pd.DataFrame) -> list[Claim]:
    found = []
    for task, rows in frame.groupby("task"):
        name = captions.NAMES.get(str(task), str(task))
        text = f"λ = {ADVICE} reaches {CLAIMED:.0%} of the gain of λ = 1 in fewer steps ({name}, init A)"
        speed = sooner(split_runs(rows), ADVICE, CLAIMED)
        found.append(Claim("convergence", "LoRA+, Fig 7", text, "about 2x", speed, 1.0, "x"))
    return found


if __name__ == "__main__":
    figures.main(__file__)
