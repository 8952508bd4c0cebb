"""`loralab tune`, live: against a sweep of 20 rates, and its makespan against a grid of HF Trainer + PEFT runs.

    python benchmarks/tuning_live.py rates --store FOLDER                   two tasks, about 25 minutes on two cores
    python benchmarks/tuning_live.py makespan --store FOLDER                rotten_tomatoes, about 7 minutes
    python benchmarks/tuning_live.py choices --store FOLDER --grid STORE    in the folder of makespan, about 10 minutes

The first two begin with `loralab tune` in an empty store, from start to end of the process.

rates: on two tasks that no rate was fitted on. 20 rates a factor of sqrt(2) apart around the law's, at the same λ, are
trained to their ends; then the recommended rate and the sweep's best on the same fresh seeds. Regret is the difference
of their validation losses, in nats: of the seed that chose, on which the sweep's best is the lowest of 20, and of the
fresh ones.

makespan: against 63 runs of the peer (7 x 9 pairs of rates, as sweeps/lr_grid.yaml), counted as its step's time times
their steps, without start-up and evaluations, which ours has; for runs of 100 steps with a budget of 5, and of 3 epochs
with a budget of 3. The peer is step_time.py's fastest setting, two processes at once on one thread each, as the pool
trains ours.

choices: the recommended rate and the best pair of the store in which lr_grid was trained, on the same fresh seeds.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from saved import save
from step_time import Bench

from loralab.config.compose import leaves
from loralab.sweeps.collect import table
from loralab.sweeps.study import open_study
from loralab.tuning.tuned import Tuned

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
SHARED = ("task.eval_rows=500", "tracker=none")
SHORT = "train.steps=100"
LENGTHS = ((SHORT, 5), ("train.epochs=3", 3))  # of makespans, with the budget
COMPARED = (SHORT, 5)  # whose choice is trained on fresh seeds beside the grid's
TASKS = ("sms_spam", "trec_fine")
RATES = 20
CELLS = 63
PEER = "grouped_bf16"
REPEATS = 3


def tuned(task: str, store: Path, length: str = SHORT, budget: int = 5) -> tuple[Tuned, float]:
    """The recommendation for a task in an empty store, and the seconds that it took."""
    if (store / "runs").exists():
        raise SystemExit(f"{store} has runs: name a new folder, so that all of the cost is measured")
    began = time.monotonic()
    command = [sys.executable, "-m", "loralab.cli.main", "tune", f"task={task}", length, *SHARED]
    subprocess.run([*command, f"--budget={budget}", "--store", str(store)], check=True, cwd=ROOT)
    seconds = time.monotonic() - began
    (file,) = store.glob("tune/*/tune.yaml")
    return Tuned.read(file), seconds


def losses(found: Tuned, store: Path, settings: Mapping[str, Sequence[Any]]) -> list[float]:
    """The final validation losses of the recommended run with these settings instead, for every combination."""
    given = [text for text in found.overrides if text.partition("=")[0] not in (*settings, "seed")]
    lists = [f"{key}={','.join(map(str, values))}" for key, values in settings.items()]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *given, *lists, f"store={store}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return [_loss(store, dict(zip(settings, values, strict=True))) for values in product(*settings.values())]


def _loss(store: Path, settings: Mapping[str, Any]) -> float:
    """That of the run with these settings; inf if it diverged."""
    for path in (store / "runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        values = dict(leaves(record["config"]))
        if record["status"] == "success" and all(values[key] == value for key, value in settings.items()):
            return float(record["metrics"]["validation"]["last"]["loss"])
    return math.inf


def rates(store: Path, fresh: Sequence[int]) -> list[dict[str, Any]]:
    """One row a task."""
    rows = []
    for task in TASKS:
        found, seconds = tuned(task, store / task)
        law = float(found.predicted[0]["optim.lr"])
        swept = [float(f"{law * 2 ** ((step - RATES // 2) / 2):.3g}") for step in range(RATES)]
        of_rate = dict(zip(swept, losses(found, store / task, {"optim.lr": swept, "seed": [0]}), strict=True))
        best, chosen = min(of_rate, key=of_rate.__getitem__), float(found.settings["optim.lr"])
        (own,) = losses(found, store / task, {"optim.lr": [chosen], "seed": [0]})
        pairs = losses(found, store / task, {"optim.lr": [chosen, best], "seed": fresh})
        gaps = [a - b for a, b in zip(pairs[: len(fresh)], pairs[len(fresh) :], strict=True)]
        rows.append({
            "task": task, "law": law, "chosen": chosen, "best_of_20": best, "full_runs": found.cost["full_runs"],
            "seconds": seconds, "loss_chosen": own, "loss_best": of_rate[best], "regret": own - of_rate[best],
            "fresh_regret": fmean(gaps), "fresh_error": stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else math.nan,
            "law_regret": of_rate[law] - of_rate[best],
        })  # fmt: skip
    return rows


def makespan(store: Path) -> list[dict[str, Any]]:
    """One row a length and budget: both makespans."""
    bench = Bench(store, quick=False, say=print)
    bench.tune(PEER, threads=1)
    timed = [fmean(one.ms_per_step for one in bench.time_arm(PEER, processes=2, threads=1)) / 2 for _ in range(REPEATS)]
    rows = []
    for length, budget in LENGTHS:
        found, seconds = tuned("rotten_tomatoes", _folder(store, length, budget), length, budget)
        steps = _steps(_folder(store, length, budget))
        peers = CELLS * steps * median(timed) / 1e3
        rows.append({
            "length": length, "steps": steps, "budget": budget, "full_runs": found.cost["full_runs"],
            "chosen": found.settings["optim.lr"], "seconds": seconds, "peer_ms_per_step": median(timed),
            "peer_seconds": peers, "times": peers / seconds,
        })  # fmt: skip
    return rows


def _folder(store: Path, length: str, budget: int) -> Path:
    return store / f"{length}-{budget}"


def _steps(store: Path) -> int:
    """Of a run that came to its end."""
    records = [json.loads(path.read_text()) for path in (store / "runs").glob("*/record.json")]
    return int(next(record["steps"] for record in records if record["status"] == "success"))


def choices(store: Path, grid: Path, fresh: Sequence[int]) -> list[dict[str, Any]]:
    """One row: the recommendation of `makespan` and the best pair of the grid, on the same fresh seeds."""
    (file,) = _folder(store, *COMPARED).glob("tune/*/tune.yaml")
    found = Tuned.read(file)
    with open_study("lr_grid", ["task=rotten_tomatoes", "lora.init=A"], store=grid) as study:
        cells = table(study.store, study.first_cells())
    best = cells.sort_values("validation/loss").iloc[0].to_dict()
    pair = {"optim.lr": [float(best["optim.lr"])], "lora.ratio": [float(best["lora.ratio"])]}
    ours = losses(found, store / "chosen", {"optim.lr": [found.settings["optim.lr"]], "seed": fresh})
    theirs = losses(found, store / "grid", {**pair, "seed": fresh})
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    return [{
        "chosen": found.settings["optim.lr"], "grid_lr": pair["optim.lr"][0], "grid_ratio": pair["lora.ratio"][0],
        "loss_chosen": fmean(ours), "loss_grid": fmean(theirs), "difference": fmean(gaps),
        "error": stdev(gaps) / len(gaps) ** 0.5,
    }]  # fmt: skip


def main() -> None:
    """Measures one part, prints it, and writes it to results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rates", "makespan", "choices"))
    parser.add_argument("--store", type=Path, required=True, help="a new folder, outside of the checkout")
    parser.add_argument("--grid", type=Path, help="choices: the store in which lr_grid was trained")
    parser.add_argument("--fresh", type=int, default=20, help="fresh seeds on which choices are compared (default: 20)")
    asked = parser.parse_args()
    fresh = list(range(200, 200 + asked.fresh))
    if asked.part == "choices" and asked.grid is None:
        parser.error("choices needs --grid: the store in which `python train.py sweeps=lr_grid` was trained")
    parts = {
        "rates": lambda: rates(asked.store, fresh),
        "makespan": lambda: makespan(asked.store),
        "choices": lambda: choices(asked.store, asked.grid, fresh),
    }
    rows = parts[asked.part]()
    shown = Table("figure", *[str(row.get("task", "rotten_tomatoes")) for row in rows], box=None)
    for name in rows[0]:
        shown.add_row(name, *[f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for row in rows])
    Console().print(shown)
    save(pd.DataFrame(rows), RESULTS / f"tuning_{asked.part}.csv")


if __name__ == "__main__":
    main()
