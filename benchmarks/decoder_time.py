"""Speed of SmolLM2-135M with LoRA (q and v, r = 8), against HF Trainer + PEFT and `generate`, in one run.

    python benchmarks/decoder_time.py            all parts, three repeats, about 30 minutes on two idle cores
    python benchmarks/decoder_time.py --quick    one repeat of few steps, a check and not a measurement

Parts: classify (task=trec, batches of 32), answer (task=sql, batches of 16) and generate (task=sql, greedy, batches of
32, 32 tokens each). The arms alternate, each in a fresh process with equal numbers of threads, all in bf16; results are
medians over the repeats. Overrides of the config may follow: model.path=FOLDER.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ours
import pandas as pd
from rich.console import Console
from rich.table import Table
from saved import save

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "decoder_time.csv"
BATCH = {"classify": 32, "answer": 16, "generate": 32}
STEPS = {"classify": 40, "answer": 20, "generate": 0}
ARMS = ("ours", "stock", "tuned", "floor")
UNIT = {"classify": "ms/step", "answer": "ms/step", "generate": "tokens/s"}


def measure(part: str, arm: str, *, steps: int, threads: int, overrides: list[str]) -> dict[str, Any]:
    """The result of one process."""
    command = [sys.executable, str(HERE / "decoder_arms.py"), f"--part={part}", f"--arm={arm}"]
    command += [f"--batch={BATCH[part]}", f"--steps={steps}", f"--threads={threads}", *overrides]
    done = subprocess.run(command, env=ours.environment(threads), text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode} of {command!r}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(rows: pd.DataFrame, screen: Console) -> None:
    """Medians over the repeats, with each arm's time as a multiple of ours."""
    for part, of_part in rows.groupby("part", sort=False):
        middle = of_part.groupby("arm", sort=False).agg(variant=("variant", "first"), value=("value", "median"))
        table = Table("arm", "variant", UNIT[str(part)], "time / ours", title=str(part), box=None)
        own = float(middle["value"].get("ours", float("nan")))
        for arm, variant, value in middle.itertuples(name=None):
            times = own / value if part == "generate" else value / own
            table.add_row(str(arm), variant, f"{value:,.1f}", f"{times:.2f}")
        screen.print(table)


def main() -> None:
    """Measures, prints the tables and, with --save, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--repeats", type=int, default=None, help="default: 3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    asked, overrides = parser.parse_known_args()
    screen, rows = Console(width=120), []
    with tempfile.TemporaryDirectory(prefix="decoder_time_") as store:
        for repeat in range(asked.repeats or (1 if asked.quick else 3)):
            for part in asked.parts:
                steps = min(STEPS[part], 4) if asked.quick else STEPS[part]
                for arm in asked.arms:
                    given = [f"store={store}", *overrides]
                    found = measure(part, arm, steps=steps, threads=asked.threads, overrides=given)
                    rows.append({"part": part, "arm": arm, "repeat": repeat, "unit": UNIT[part], **found})
                    screen.print(f"{part} {repeat}: {arm} {found['value']:.1f} {UNIT[part]}", style="dim")
    table = pd.DataFrame(rows)
    report(table, screen)
    if asked.save:
        save(table, RESULT)


if __name__ == "__main__":
    main()
