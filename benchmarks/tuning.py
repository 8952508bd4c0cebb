"""Regret against cost of tuning methods: how far above the lowest loss is the pair of rates that each would choose?

    python benchmarks/tuning.py                            an hour on one core, most of it the Gaussian process
    python benchmarks/tuning.py --draws 20 --methods law random halving
    python benchmarks/tuning.py --to FOLDER                also writes FOLDER/tuning.csv and FOLDER/tuning.png

The tables are those of the study lr_grid: 63 pairs (lr_A, lr_B), a factor of 2 apart, with validation losses at each
tenth of the steps; every task and init of the CSV is a setting. A method plays in worlds drawn from a table
(tuning_tables.py): the true loss of any pair is a smooth fit, and each run has the noise of a seed. Regret is the true
loss of the chosen pair minus the lowest true loss of the 63, in validation nats. Cost is in full runs.

The law's rate is that of loralab.theory.rate_law at λ = 4, times 2^N(0, OFF) in each world: the law was fitted on other
runs of these tasks among others, and OFF is how far it is from a tuned arm in general. "law, 4x low" and "law, 4x high"
start there from a rate that is wrong by that much.
"""

import argparse
import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import tuning_methods as methods
from rich.console import Console
from rich.table import Table as Printed
from tuning_tables import SHARES, Draw, Table

from loralab.plotting import COLOURS, DOUBLE, save, style
from loralab.studies.thinned_curves import curve
from loralab.theory.rate_law import MINILM, MINILM_WIDTH, c_of, lr_A

RESULTS = Path(__file__).resolve().parents[1] / "analysis" / "results" / "lr_grid.csv"
OFF = 0.39  # root mean square of the law's error over 103 tuned arms, in doublings (loralab.theory.rate_law)
SHARE = 0.05  # of the exhaustive grid's cost, at which the methods are compared
MEDIAN, WORST = 0.010, 0.030  # the goal: of the median regret and of the 90th percentile
COSTS = (*methods.BUDGETS, 16.0, 63.0)
MOST = {"gp": 5.0, "tpe": 10.0, "law": 10.0, "grid": 63.0}  # full runs to which a method is followed; the others to 16
Play = Callable[[Draw, float], methods.Path]


def plays(init: Literal["A", "B"]) -> dict[str, Callable[[int], Play]]:
    """name -> (number of a draw -> the method)."""
    rate = lr_A(c_of(("q", "v"), MINILM), s=1, rank=8, ratio=4, init=init, width=MINILM_WIDTH, steps=100)

    def started(times: float, known: bool = True) -> Callable[[int], Play]:
        return lambda number: methods.law(rate * times * 2 ** _error(number), known)

    named: dict[str, Callable[[int], Play]] = {
        "law": started(1),
        "law, 4x low": started(0.25),
        "law, 4x high": started(4),
        "law, unknown backbone": started(1, known=False),
    }
    for space in cast("tuple[methods.Space, ...]", ("line", "plane")):
        blind = {"random": methods.at_random(space), "halving": methods.halving(space)}
        blind |= {"tpe": methods.with_optuna("tpe", space), "gp": methods.with_optuna("gp", space)}
        named |= {f"{name}, {space}": _in_every_world(play) for name, play in blind.items()}
    return named | {"grid": _in_every_world(methods.grid)}


def _in_every_world(play: Play) -> Callable[[int], Play]:
    return lambda _number: play


def _error(number: int) -> float:
    """The law's, in doublings, in one world."""
    return float(np.random.default_rng([number, 3]).normal(0, OFF))


def tables(results: Path) -> dict[str, Table]:
    """`task, init` -> the table of its curves; a diverged run has the highest loss of the table from there on."""
    found = {}
    for (task, init), rows in pd.read_csv(results).groupby(["task", "lora.init"], sort=False):
        a, ratio = np.log2(rows["optim.lr"].to_numpy()), np.log2(rows["lora.ratio"].to_numpy())
        curves = [dict(curve(row)) for _, row in rows.iterrows()]
        losses = np.array([[one.get(share, math.nan) for share in SHARES] for one in curves])
        losses = np.where(np.isnan(losses), np.nanmax(losses, axis=0), losses)
        found[f"{task}, init {init}"] = Table(f"{task}, init {init}", np.column_stack([a, a + ratio]), losses)
    return found


def regrets(table: Table, name: str, draws: int) -> list[tuple[float, float]]:
    """(cost, regret) of one method at each of COSTS that it comes to, in each world."""
    init = cast("Literal['A', 'B']", table.name[-1])
    rows = []
    for number in range(draws):
        draw = Draw(table, number)
        most = next((most for prefix, most in MOST.items() if name.startswith(prefix)), 16.0)
        path = plays(init)[name](number)(draw, most)
        for cost in (cost for cost in COSTS if cost <= most):
            chosen = [pair for spent, pair in path if spent <= cost + 1e-9]
            if chosen:
                rows.append((cost, draw.regret(*chosen[-1])))
    return rows


def measured(found: dict[str, Table], names: Sequence[str], draws: int, processes: int) -> pd.DataFrame:
    """Columns setting, method, cost, median, p90, draws: over those worlds in which the method had chosen by then."""
    tasks = list(itertools.product(found, names))
    given = ([found[setting] for setting, _ in tasks], [name for _, name in tasks], [draws] * len(tasks))
    with ProcessPoolExecutor(processes) as pool:
        parts = pool.map(regrets, *given)
        rows = [(*task, *row) for task, part in zip(tasks, parts, strict=True) for row in part]
    frame = pd.DataFrame(rows, columns=["setting", "method", "cost", "regret"])
    grouped = frame.groupby(["setting", "method", "cost"], sort=False)["regret"]
    return grouped.agg(median="median", p90=lambda values: values.quantile(0.9), draws="size").reset_index()


def report(rows: pd.DataFrame, found: dict[str, Table], screen: Console) -> None:
    """Each setting's methods at SHARE of the grid's cost, and whether the goal is met."""
    for setting, table in found.items():
        own = rows[rows["setting"] == setting]
        budget = max(cost for cost in COSTS if cost <= SHARE * len(table.places) + 1e-9)
        title = f"{setting}: lowest loss {table.lowest:.3f}, noise of a seed {table.noise:.3f} nats"
        printed = Printed("method", "cost", "of the grid", "median regret", "p90", title=title, box=None)
        for name, of_method in own.groupby("method", sort=False):
            for row in of_method[of_method["cost"].isin((1.0, budget, 5.0, 63.0))].to_dict("records"):
                share = f"{row['cost'] / len(table.places):.1%}"
                printed.add_row(str(name), f"{row['cost']:g}", share, f"{row['median']:.4f}", f"{row['p90']:.4f}")
        screen.print(printed)
        at = {str(row["method"]): row for row in own[own["cost"] == budget].to_dict("records")}
        if "law" not in at:
            continue
        met = at["law"]["median"] <= MEDIAN and at["law"]["p90"] <= WORST
        others = {name: float(row["median"]) for name, row in at.items() if not name.startswith("law")}
        best = min(others, key=others.__getitem__, default=None)
        beside = "" if best is None else f"; the best other: {best}, {others[best]:.4f}"
        screen.print(f"goal (median {MEDIAN}, p90 {WORST} at {budget:g} runs): {'met' if met else 'MISSED'}{beside}\n")


def drawn(rows: pd.DataFrame, to: Path) -> None:
    """Median regret over cost, one panel a setting."""
    from matplotlib import pyplot

    colours = dict(zip(("law", "halving", "tpe", "gp", "random", "grid"), (COLOURS[6], *COLOURS), strict=False))
    labels = {"law": "law search", "tpe": "TPE + Hyperband", "gp": "Gaussian process", "halving": "successive halving"}
    settings = list(dict.fromkeys(rows["setting"]))
    with style():
        size = (DOUBLE, 2.6 * math.ceil(len(settings) / 2) + 0.6)
        figure, grid = pyplot.subplots(
            math.ceil(len(settings) / 2), 2, figsize=size, sharex=True, sharey=True, squeeze=False
        )
        for axes, setting in zip(grid.flat, settings, strict=False):
            for name, own in rows[rows["setting"] == setting].groupby("method", sort=False):
                method, _, space = str(name).partition(", ")
                if method == "law" and space:
                    continue
                line = "--" if space == "plane" else "-"
                label = labels.get(method, method) if space != "plane" else None
                axes.plot(own["cost"], own["median"].clip(lower=3e-4), line, color=colours[method], label=label,
                          lw=2.2 if method == "law" else 1.2, marker="o" if len(own) == 1 else "")  # fmt: skip
            axes.axhline(MEDIAN, color="0.6", lw=0.6)
            axes.axvline(SHARE * 63, color="0.6", lw=0.6)
            axes.set(xscale="log", yscale="log", title=setting)
        ticks = [1, 2, 3.15, 5, 10, 20, 63]
        grid.flat[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        grid.flat[0].minorticks_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("regret (validation nats)")
        for axes in grid[-1]:
            axes.set_xlabel("cost (full runs)")
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
        save(
            figure,
            to,
            f"Median over {rows['draws'].max()} worlds, each drawn from 63 runs. Solid: the rate alone, at λ = 4. "
            f"Dashed: both rates. Grey: the goal, {MEDIAN} nats at {SHARE:.0%} of the grid's cost.",
        )


def main() -> None:
    """Measures, prints, and writes where --to says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=RESULTS, help="a CSV of lr_grid (default: the committed one)")
    parser.add_argument("--draws", type=int, default=200, help="worlds per setting (default: 200)")
    parser.add_argument("--methods", nargs="+", help="those whose names begin so (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--to", type=Path, help="a folder for tuning.csv and tuning.png")
    asked = parser.parse_args()
    names = [name for name in plays("A") if asked.methods is None or name.startswith(tuple(asked.methods))]
    found, screen = tables(asked.table), Console(width=120)
    rows = measured(found, names, asked.draws, asked.processes)
    report(rows, found, screen)
    if asked.to is not None:
        asked.to.mkdir(parents=True, exist_ok=True)
        rows.to_csv(asked.to / "tuning.csv", index=False, float_format="%.5g")
        drawn(rows, asked.to / "tuning.png")


if __name__ == "__main__":
    main()
