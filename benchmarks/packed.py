"""Packed sweeps against runs one after another and in as many processes as fit: throughput, makespan, memory.

    python benchmarks/packed.py                       widths 64 to 384, P = 1 to 32; about 40 minutes on two idle cores
    python benchmarks/packed.py --quick               width 64, P = 1 to 4: a check that it works, not a measurement
    python benchmarks/packed.py --device cuda --models minilm roberta smollm2    on a GPU

Runs are BERT of MiniLM's depth with random weights at each width (or the models named), on Rotten Tomatoes, LoRA+ with
r = 8 on q and v, fp32 on a CPU and `auto` elsewhere; they differ in their rates and initial factors. Three parts:
steps: steps a second of P runs together, trained in one process as a pack and one after another (of which at most four
    are trained), from the records' training seconds; with one order of the data, and with one for each run.
makespan: seconds from the first run's start to the last one's end of a sweep of P runs, by the real command: one at a
    time, in as many processes as there are cores (or four to a GPU), and in packs in those processes.
memory: peak MB of a process that trains a pack, and what each run beyond the second adds.
"""

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ours
import pandas as pd
from rich.console import Console as Screen
from rich.table import Table
from saved import save

from loralab.sweeps.resources import cores

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "packed.csv"
GOALS = {64: 2.0, 384: 1.0}  # least ratio of a pack of 8 to one after another, batches of 8
MOST_ALONE = 4  # runs one after another that are timed; more have the same speed
WARM = 4  # steps of the run that reads the data first

Say = Callable[[str], None]


def checkpoint(folder: Path, width: int) -> Path:
    """BERT with MiniLM's depth, vocabulary and tokenizer, and random weights of this width."""
    import torch
    from transformers import BertConfig, BertModel

    from loralab.runs.plan import plan

    there = plan(composed(folder, "model=minilm")).source.directory
    assert there is not None
    config = BertConfig.from_pretrained(there)
    config.hidden_size, config.intermediate_size, config.num_attention_heads = width, 4 * width, width // 32
    made = folder / f"bert-{width}"
    torch.manual_seed(0)
    BertModel(config).save_pretrained(made)
    for path in there.iterdir():
        if path.is_file() and not (made / path.name).exists() and path.suffix in (".json", ".txt"):
            shutil.copy(path, made)
    return made


def settings(asked: argparse.Namespace, model: Sequence[str], batch: int) -> list[str]:
    precision = "fp32" if asked.device == "cpu" else "auto"
    return [
        *model, "task=rotten_tomatoes", "tracker=none", "task.eval_rows=64", f"train.batch_size={batch}",
        f"train.steps={asked.steps}", "train.epochs=null", f"train.precision={precision}",
        f"train.device={asked.device}", "train.threads=1", "optim.lr=1e-3", "train.checkpoint_seconds=1000",
    ]  # fmt: skip


def composed(store: Path, *overrides: str) -> Any:
    from hydra import compose

    from loralab.config.compose import configs
    from loralab.config.schema import from_hydra

    with configs():
        return from_hydra(compose("config", [*overrides, f"store={store}"]))


def member(i: int, order: str) -> list[str]:
    """What run i of a pack has of its own."""
    return [f"init_seed={i}", f"data_seed={i if order == 'own' else 0}", f"lora.ratio={1 + i}"]


def work(job: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: trains P runs in a pack or one after another."""
    from loralab.runs.console import Console
    from loralab.runs.pack import run_pack
    from loralab.runs.run import run

    store = Path(job["store"])
    quiet = [Console(io.StringIO(), io.StringIO(), title="") for _ in range(job["runs"])]
    warm = composed(store, *job["settings"], "seed=1000", f"train.steps={WARM}")
    run(warm, console=quiet[0])
    asked = [composed(store, *job["settings"], *member(i, job["order"])) for i in range(job["runs"])]
    records: list[Any] = run_pack(asked, quiet) if job["packed"] else [run(each, console=quiet[0]) for each in asked]
    seconds = sum(record["timing"]["training_seconds"] for record in records)
    device = records[-1]["memory"]["device_bytes"]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps_per_second": sum(record["steps"] for record in records) / seconds,
        "memory_mb": (device or host) / 2**20,
        "packed": records[0]["packed"],
    }


class Bench:
    """The measurements. Each adds rows (part, model, batch, runs, arm, repeat, name, value)."""

    def __init__(self, folder: Path, asked: argparse.Namespace, say: Say) -> None:
        self.folder, self.asked, self.say = folder, asked, say
        self.rows: list[dict[str, Any]] = []
        self.stores = 0

    def add(self, part: str, key: dict[str, Any], values: dict[str, float]) -> None:
        self.rows += [{"part": part, **key, "name": name, "value": value} for name, value in values.items()]

    def store(self) -> Path:
        """A new one, since a finished run is never trained again; the cache of texts is that of the first."""
        self.stores += 1
        made = self.folder / f"store{self.stores}"
        made.mkdir()
        return made

    def steps(self, name: str, model: Sequence[str], batch: int, runs: int, repeat: int) -> None:
        """Times a pack and runs one after another, in turns."""
        for order in ("same", "own") if runs > 1 else ("same",):
            for packed in (True, False):
                count = runs if packed else min(runs, MOST_ALONE)
                job = {"runs": count, "packed": packed, "order": order, "store": str(self.store()),
                       "settings": settings(self.asked, model, batch)}  # fmt: skip
                command = [sys.executable, __file__, "--work", json.dumps(job)]
                out = subprocess.run(command, env=ours.environment(1), check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(out.stdout.splitlines()[-1])
                assert not packed or found["packed"] == runs, f"{name}: it did not pack: {found}"
                arm = f"{'pack' if packed else 'one after another'}, {order} order"
                self.add("steps", {"model": name, "batch": batch, "runs": runs, "arm": arm, "repeat": repeat}, found)
                self.say(f"{name} x {batch}, {runs} runs, {arm}: {found['steps_per_second']:.2f} steps/s")

    def makespan(self, name: str, model: Sequence[str], batch: int, runs: int, repeat: int) -> None:
        """Times a sweep of these runs under three settings of the pool."""
        many = {"slots": cores()} if self.asked.device == "cpu" else {"slots": 4, "slots_per_gpu": 4}
        places = many["slots"]
        pools = {
            "one at a time": {"slots": 1},
            f"{places} processes": many,
            f"packs in {places} processes": many | {"pack": max(2, -(-runs // places))},
            "one pack": {"slots": 1, "pack": runs},
        }
        for arm, pool in pools.items():
            store = self.store()
            command = [
                sys.executable, str(HERE.parent / "train.py"), "-m", *settings(self.asked, model, batch),
                f"store={store}", f"init_seed=range({runs})", "data_seed=0",
                *(f"hydra.launcher.{key}={value}" for key, value in pool.items()),
            ]  # fmt: skip
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(command, env=ours.environment(1), check=True, **quiet)
            records = [json.loads(path.read_text()) for path in store.glob("runs/*/record.json")]
            assert len(records) == runs
            span = max(record["ended"] for record in records) - min(record["started"] for record in records)
            key = {"model": name, "batch": batch, "runs": runs, "arm": arm, "repeat": repeat}
            self.add("makespan", key, {"seconds": span})
            self.say(f"{name} x {batch}, sweep of {runs}, {arm}: {span:.1f} s")


def report(rows: pd.DataFrame, screen: Screen) -> None:
    """Medians over the repeats: speed-ups of packs, makespans, and memory for each further run."""
    keys = ["part", "name", "model", "batch", "runs", "arm"]
    middle = rows.groupby(keys, sort=False)["value"].median()
    table = Table("model", "batch", "runs", "order", "pack", "alone", "ratio", title="steps a second", box=None)
    speed = middle["steps"]["steps_per_second"].unstack("arm")
    for order in ("same", "own"):
        pairs = speed[[f"pack, {order} order", f"one after another, {order} order"]].dropna()
        for (model, batch, runs), pack, alone in zip(pairs.index, *pairs.to_numpy().T, strict=True):
            table.add_row(model, f"{batch}", f"{runs}", order, f"{pack:.2f}", f"{alone:.2f}", f"{pack / alone:.2f}")
    screen.print(table)
    for width, least in GOALS.items():
        screen.print(f"goal at width {width}, packs of 8, batches of 8: at least {least:g}")
    memory = middle["steps"]["memory_mb"].unstack("runs")
    for (model, batch, arm), found in memory.iterrows():
        found = found.dropna().loc[2:]
        if arm == "pack, same order" and len(found) > 1:
            each = (found.iloc[-1] - found.iloc[0]) / (found.index[-1] - found.index[0])
            screen.print(f"{model} x {batch}: {each:.1f} MB for each further run, {found.iloc[0]:.0f} MB with two")
    if "makespan" in middle:
        screen.print(middle["makespan"]["seconds"].unstack("arm").round(1).to_string())


def main() -> None:
    """Measures, prints the tables and, with --save, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256, 384], help="of random BERTs")
    parser.add_argument("--models", nargs="*", default=[], help="real ones, as model=NAME, in their stead")
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32], help="P")
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--sweep", type=int, default=16, help="runs of the makespan; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="width 64, 1 to 4 runs, batches of 8, one repeat")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        print(json.dumps(work(json.loads(asked.work))))
        return
    if asked.quick:
        asked.widths, asked.runs, asked.batches, asked.repeats, asked.sweep = [64], [1, 2, 4], [8], 1, 4
        asked.steps = min(asked.steps, 12)
    screen = Screen(width=120)
    with tempfile.TemporaryDirectory(prefix="packed_") as folder:
        bench = Bench(Path(folder), asked, lambda text: screen.print(text, style="dim"))
        models = {name: [f"model={name}"] for name in asked.models} or {
            f"width {width}": ["model=minilm", "model.package=null", f"model.path={checkpoint(Path(folder), width)}"]
            for width in asked.widths
        }
        for repeat in range(asked.repeats):
            for name, model in models.items():
                for batch in asked.batches:
                    for runs in asked.runs:
                        bench.steps(name, model, batch, runs, repeat)
                    if asked.sweep:
                        bench.makespan(name, model, batch, asked.sweep, repeat)
    rows = pd.DataFrame(bench.rows)
    report(rows, screen)
    if asked.save:
        save(rows, RESULT)


if __name__ == "__main__":
    main()
