"""The study `convergence`: accuracy and loss against the step, and the speed-up of each ratio λ over λ = 1.

`python analysis/convergence.py`: results/convergence.csv -> figures/convergence.{png,pdf} (LoRA+, Fig 7)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.errors import UserError
from loralab.studies import captions, figures
from loralab.studies.intervals import LINES, band, forest
from loralab.studies.pooled import Pooled, pooled_ratios
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import ADVICE
from loralab.studies.registered_speed import speedups
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "task.eval_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
CURVES = {("validation", "accuracy"): "validation/accuracy", ("train", "loss"): "train/loss"}
KEPT = ["hash", "stage", *AXES, "status", "step", *CURVES.values(), "seconds", "commit", "diff"]
Runs = dict[float, list[pd.DataFrame]]
"""By ratio, each seed's rows in the order of the steps."""

PAPER = 2.0  # times as fast, LoRA+'s Fig 7
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


def speeds(runs: Runs, ratio: float, unit: str = "step") -> list[float]:
    """By seed, the registered speed-up of a ratio's accuracy over that of λ = 1; NaN if one of the runs diverged.

    unit: of the time, step or seconds.
    """
    base, own = ([_curve(run, unit) for run in runs[each]] for each in (1.0, ratio))
    start = float(np.mean([run[ACCURACY].iloc[0] for run in runs[1.0]]))
    return speedups(base, own, start=start)


def _curve(run: pd.DataFrame, unit: str) -> list[tuple[float, float]]:
    """Accuracy against time; empty for a run that diverged."""
    rows = run[[unit, ACCURACY]].to_numpy(dtype=float)
    return [] if _diverged(run) else [(time, accuracy) for time, accuracy in rows.tolist() if time > 0]


def sooner(frame: pd.DataFrame, ratio: float, unit: str = "step") -> Pooled:
    """The speed-up of a ratio over λ = 1, pooled over the tasks."""
    return pooled_ratios({(task,): speeds(split_runs(rows), ratio, unit) for task, rows in frame.groupby("task")})


def above(frame: pd.DataFrame) -> list[float]:
    """The ratios above 1, ascending."""
    return sorted(ratio for ratio in frame["lora.ratio"].unique() if ratio > 1)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    tasks = sorted(frame["task"].unique())
    size = (plotting.DOUBLE, 2.2 * len(tasks) + 0.3)
    figure, axes = plt.subplots(len(tasks), 3, figsize=size, squeeze=False, width_ratios=(1, 1, 0.9))
    for row, task in zip(axes, tasks, strict=True):
        rows = frame[frame["task"] == task]
        for ax, metric, title in zip(
            row, (ACCURACY, "train/loss"), ("validation accuracy", "training loss"), strict=False
        ):
            _curves(ax, rows, metric)
            ax.set_xlabel("step")
            ax.set_ylabel(title)
        row[0].set_title(captions.NAMES.get(task, task))
        _speedups(row[2], frame, task)
        row[2].set(title="times as fast as λ = 1", xlabel="factor in steps (log)")
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


def _speedups(ax: "Axes", frame: pd.DataFrame, task: str) -> None:
    """The registered speed-up in steps of each λ."""
    found = {f"λ = {ratio:g}": sooner(frame, ratio).settings[task,] for ratio in above(frame)}
    forest(ax, [*found], {"": [*found.values()]}, null=1.0, claimed=("LoRA+ claims 2 times", PAPER, PAPER))
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, [0.5, 1, 2])
    ax.set_xlim(0.35, 2.9)


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}, each λ at the rate that `ratio` "
        f"selected. Mean and 95% of {captions.seeds(frame)} (Student t). Right: the factor in steps that lays the "
        f"accuracy of λ = 1 on that of λ, over 30 to 90% of the gain. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per ratio, and task or all: the speed-up over λ = 1 in steps and in seconds."""
    rows = []
    for ratio in above(frame):
        steps, seconds = (sooner(frame, ratio, unit) for unit in ("step", "seconds"))
        for (task,) in steps.settings:
            times = [each.settings[task,] for each in (steps, seconds)]
            rows.append(
                {"ratio": ratio, "task": task, "times, steps": _text(times[0]), "times, seconds": _text(times[1])}
            )
        rows.append(
            {
                "ratio": ratio,
                "task": "all",
                "times, steps": _text(steps.effect),
                "times, seconds": _text(seconds.effect),
            }
        )
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of all tasks have no runs of their own."""
    return frame[["task"]].assign(ratio=frame["lora.ratio"])


def _text(found: Interval) -> str:
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def questions(frame: pd.DataFrame) -> list[Question]:
    pooled = {ratio: sooner(frame, ratio) for ratio in sorted(above(frame), key=lambda each: (each != ADVICE, each))}
    claims = [Claim(f"λ = {ratio:g}", each.effect, "about 2x", PAPER, pooled=each) for ratio, each in pooled.items()]
    text = f"how many times as fast does a λ above 1 gain accuracy as λ = 1 ({captions.tasks(frame)}, init A)?"
    return [Question(text, "LoRA+, Fig 7", "x", claims)]


if __name__ == "__main__":
    figures.main(__file__)
