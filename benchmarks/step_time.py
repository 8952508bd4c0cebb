"""Speed of training against HF Trainer + PEFT + create_loraplus_optimizer, in one run on one machine.

    python benchmarks/step_time.py            everything, about 35 minutes on two cores of an idle machine
    python benchmarks/step_time.py --quick    one repeat of short windows, about 8 minutes: a check, not a measurement

Both sides train MiniLM on rotten_tomatoes with LoRA+ (r = alpha = 8 on q and v, ratio 16, AdamW), batches of 32, and
equal numbers of threads. Each arm runs in a fresh process; the arms alternate; results are medians over the repeats. A
step's time is the wall time between the ends of two steps; it includes data loading and the optimizer, not set-up and
evaluation. Ours is `python train.py` with its defaults. The peer has four settings, each with its fastest attention and
precision on this machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import ours
import pandas as pd
from peers import SETTINGS
from rich.console import Console
from rich.table import Table
from saved import save

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "step_time.csv"
BATCH = 32
ROWS = 159 * BATCH  # of the 5,100 training rows: every batch is full
EPOCH = ROWS // BATCH
WARM_UP = 10  # steps before the window, a multiple of train.log_every
# Batches grouped by length differ in time by a factor of 3, so their window is an epoch; random ones differ by 10%.
WINDOW = {"padded": 30, "dynamic": 40, "dynamic_bf16": 40, "grouped_bf16": EPOCH, "ours": 10 * (EPOCH // 10)}
ARMS = tuple(WINDOW)
PARTS = ("throughput", "pairs", "floor", "start", "growth")
# Minimum ratio peer / ours, per sample: to the best of the four settings, and to the first (padded to 128).
GOALS = {"throughput": (1.6, 12.0), "pairs": (2.5, 25.0)}


@dataclass(frozen=True)
class Timed:
    """One process's window."""

    ms_per_step: float
    tokens: float  # real tokens of an example, on average


class Bench:
    """The measurements. Each adds rows (part, arm, variant, repeat, name, value) to `rows`."""

    def __init__(self, store: Path, *, quick: bool, say: Callable[[str], None]) -> None:
        self.store, self.quick, self.say = store, quick, say
        self.rows: list[dict[str, Any]] = []
        self.variants: dict[str, tuple[str, str]] = {}  # setting -> the fastest attention and precision
        self.seeds = 0

    def add(self, part: str, arm: str, repeat: int, values: dict[str, float], *, variant: str = "") -> None:
        """Adds one row per value."""
        head = {"part": part, "arm": arm, "variant": variant, "repeat": repeat}
        self.rows += [{**head, "name": name, "value": value} for name, value in values.items()]

    def seed(self) -> int:
        """A new seed for each run, since a finished run is never trained again."""
        self.seeds += 1
        return self.seeds

    def window(self, arm: str) -> int:
        """The number of timed steps."""
        return min(WINDOW[arm], 20 if arm in ("padded", "dynamic") else 60) if self.quick else WINDOW[arm]

    def time_arm(self, arm: str, *, processes: int, threads: int) -> list[Timed]:
        """The windows of `processes` runs that start together."""
        seeds = [self.seed() for _ in range(processes)]
        if arm == "ours":
            return self._ours(seeds, threads)
        attention, precision = self.variants[arm]
        return self._peer(arm, attention, precision, seeds=seeds, threads=threads, window=self.window(arm))

    def _ours(self, seeds: list[int], threads: int) -> list[Timed]:
        last = WARM_UP + self.window("ours")
        settings = [f"task.train_rows={ROWS}", f"train.steps={last}", "train.epochs=null", "train.eval_every=1000000"]
        started = [ours.start(ours.environment(threads), self.store, f"seed={s}", *settings) for s in seeds]
        for process in started:
            ours.finish(process)
        timed = []
        for seed in seeds:
            (path,) = (self.store / "runs").glob(f"*-s{seed}-*/record.json")
            record = json.loads(path.read_text())
            assert record["threads"] == threads
            seconds = ours.window_seconds(self.store, seed, WARM_UP, last)
            timed.append(Timed(1e3 * seconds / (last - WARM_UP), record["timing"]["tokens"] / record["steps"] / BATCH))
        return timed

    def _peer(
        self, setting: str, attention: str, precision: str, *, seeds: list[int], threads: int, window: int
    ) -> list[Timed]:
        command = [sys.executable, str(HERE / "peers.py"), f"--setting={setting}", f"--attention={attention}"]
        command += [f"--precision={precision}", f"--rows={ROWS}", f"--batch={BATCH}", f"--threads={threads}"]
        command += [f"--steps={WARM_UP + window}"]
        outputs = _outputs([[*command, f"--seed={seed}"] for seed in seeds], threads)
        timed = []
        for output in outputs:
            marks = output["marks"]
            timed.append(Timed(1e3 * (marks[-1] - marks[WARM_UP - 1]) / window, output["tokens"]))
        return timed

    def tune(self, setting: str, *, threads: int) -> None:
        """Finds the peer's fastest variant of a setting: every attention with every precision, on the same batches."""
        window = 6 if self.quick else 12
        precisions = ("autocast", "weights", "both") if setting.endswith("bf16") else ("fp32",)
        found = {}
        for variant in [(a, p) for a in ("sdpa", "eager") for p in precisions]:
            (timed,) = self._peer(setting, *variant, seeds=[0], threads=threads, window=window)
            found[variant] = timed.ms_per_step
            self.add("tuning", setting, 0, {"ms_per_step": timed.ms_per_step}, variant="+".join(variant))
        self.variants[setting] = min(found, key=lambda variant: found[variant])
        self.say(f"{setting}: " + "  ".join(f"{'+'.join(v)} {ms:.0f} ms" for v, ms in found.items()))

    def compare(self, part: str, arms: list[str], repeat: int, threads: int) -> None:
        """Measures every arm once: one process on all threads, or (pairs) one single-threaded process per thread."""
        for arm in arms:
            processes = 1 if part == "throughput" else threads
            timed = self.time_arm(arm, processes=processes, threads=threads // processes)
            ms = mean(t.ms_per_step for t in timed) / processes
            values = {
                "ms_per_step": ms,
                "ms_per_sample": ms / BATCH,
                "tokens_per_s": 1e3 * BATCH * timed[0].tokens / ms,
            }
            self.add(part, arm, repeat, values, variant="+".join(self.variants[arm]) if arm != "ours" else "")
            self.say(f"{part} {repeat}: {arm} {ms:.1f} ms a step")

    def floor(self, repeat: int, threads: int) -> None:
        """Measures the matmul floor on all threads and on one."""
        tokens = round(BATCH * self._mean_tokens())
        for part, n in (("throughput", threads), ("pairs", 1)):
            command = [sys.executable, str(HERE / "floor.py"), f"--tokens={tokens}", f"--batch={BATCH}"]
            (floors,) = _outputs([[*command, f"--threads={n}"]], n)
            # Pairs: the floor of one thread, divided by the number of parallel processes.
            self.add("floor", part, repeat, {f"{name}_ms": ms * n / threads for name, ms in floors.items()})

    def _mean_tokens(self) -> float:
        rates = {r["name"]: r["value"] for r in self.rows if r["arm"] == "ours" and r["part"] in GOALS}
        if not rates:
            raise SystemExit("the floor is that of our batches: measure the arm `ours` in the same call")
        return float(rates["tokens_per_s"] * rates["ms_per_sample"] / 1e3)

    def start(self, repeat: int, threads: int) -> None:
        """Measures the time from command to first step, with cached tokens."""
        seconds = ours.first_step(ours.environment(threads), self.store, self.seed())
        self.add("start", "ours", repeat, {"first_step_s": seconds})
        self.say(f"start {repeat}: {seconds:.1f} s")

    def growth(self, threads: int) -> None:
        """Measures step time and resident memory, early and late in one run."""
        found = ours.growth(ours.environment(threads), self.store, self.seed(), early=100, late=1000, epoch=50)
        for step, values in found.items():
            self.add("growth", "ours", 0, values, variant=f"step {step}")


def _outputs(commands: list[list[str]], threads: int) -> list[Any]:
    """The JSON on the last line of each command's output; the commands run in parallel."""
    environment = ours.environment(threads)
    processes = [
        subprocess.Popen(c, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for c in commands
    ]
    outputs = []
    for process in processes:
        out, said = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"exit status {process.returncode} of {process.args!r}\n{said}")
        outputs.append(json.loads(out.splitlines()[-1]))
    return outputs


def report(rows: pd.DataFrame, screen: Console) -> None:
    """Medians over the repeats, against the goals."""
    middle = rows.groupby(["part", "arm", "variant", "name"], sort=False)["value"].median()
    for part, title in (("throughput", "one process on all threads"), ("pairs", "one one-thread process a core")):
        if part not in middle:
            continue
        table = Table("arm", "fastest variant", "ms/step", "ms/sample", "tokens/s", "times ours", title=title, box=None)
        samples = {arm: v for (arm, _, name), v in middle[part].items() if name == "ms_per_sample"}
        for (arm, variant), values in middle[part].unstack("name").iterrows():
            ratio = f"{samples[arm] / samples['ours']:.2f}" if "ours" in samples else ""
            table.add_row(arm, variant, *(f"{values[n]:,.{d}f}" for n, d in
                          (("ms_per_step", 1), ("ms_per_sample", 3), ("tokens_per_s", 0))), ratio)  # fmt: skip
        screen.print(table)
        if len(samples) == len(ARMS):
            best = min(v for arm, v in samples.items() if arm != "ours") / samples["ours"]
            first = samples["padded"] / samples["ours"]
            goals = GOALS[part]
            screen.print(f"best peer {best:.2f}x (goal {goals[0]}), padded {first:.1f}x (goal {goals[1]})")
        if "floor" in middle:
            floors = middle["floor"][part][""]
            shares = (f"{n[:-3]} {ms:.1f} ms ({ms / (BATCH * samples['ours']):.0%})" for n, ms in floors.items())
            screen.print("matmul floor (its share of our step): " + ", ".join(shares) + "\n")
    if "start" in middle:
        screen.print(f"command to first step: {middle['start'].iloc[0]:.1f} s (goal 5)")
    if "growth" in middle:
        screen.print(middle["growth"]["ours"].unstack("name").round(1).to_string())


def main() -> None:
    """Measures, prints the tables and, with --save, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=None, help="default: 3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2, help="cores to use in all")
    parser.add_argument("--quick", action="store_true", help="short windows")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    asked = parser.parse_args()
    screen = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="step_time_") as folder:
        bench = Bench(Path(folder), quick=asked.quick, say=lambda text: screen.print(text, style="dim"))
        comparisons = [part for part in ("throughput", "pairs") if part in asked.parts]
        if comparisons:
            for setting in [arm for arm in asked.arms if arm in SETTINGS]:
                bench.tune(setting, threads=asked.threads)
        if "start" in asked.parts:
            ours.first_step(
                ours.environment(asked.threads), bench.store, bench.seed()
            )  # tokenises, fills the page cache
        for repeat in range(asked.repeats or (1 if asked.quick else 3)):
            for part in comparisons:
                bench.compare(part, asked.arms, repeat, asked.threads)
            if "floor" in asked.parts:
                bench.floor(repeat, asked.threads)
            if "start" in asked.parts:
                bench.start(repeat, asked.threads)
        if "growth" in asked.parts:
            bench.growth(asked.threads)
    rows = pd.DataFrame(bench.rows)
    report(rows, screen)
    if asked.save:
        save(rows, RESULT)


if __name__ == "__main__":
    main()
