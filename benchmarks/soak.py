"""Disturbs runs and sweeps with signals at random moments, then compares every run with an undisturbed one.

    python benchmarks/soak.py                     200 signals: about 40 minutes on two cores
    python benchmarks/soak.py --signals 24        one per scenario and signal

A scenario is a set of commands on one store. A signal goes to one process: a command, or a worker of its pool. A
command that ended is started again, until the scenario had its signals; then the commands run undisturbed to their end.
KILL, TERM and INT end the process; STOP halts it for a second, then it gets CONT. Counted are:

    lost       runs that are not there at the end, or have no record of success
    different  runs whose metrics (less the clock), adapter or predictions differ from the undisturbed run's
    repeated   records that were written a second time
    left over  temporary files, checkpoints and empty run folders in the store at the end, but for the temporary
               files in cache/, which go when they are a day old
    other ends commands that ended with another status than 0, 1 (a worker was killed), 130 or 143, or by the signal

The exit status is 1 if any count is above 0. The last lines are the table of docs/reliability.md.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "tracker=none", "model=tiny", "task.train_rows=64", "task.eval_rows=64", "train.max_length=24",
    "train.batch_size=8", "train.epochs=null", "train.steps=160", "train.eval_every=40", "train.threads=1",
    "train.device=cpu", "train.precision=fp32", "train.checkpoint_seconds=0.2",
)  # fmt: skip
SWEEP = ("-m", "hydra.launcher.slots=2")
RATIOS = ("lora.ratio=1,4,16", "seed=0,1")
# name: the commands' overrides, and which process is disturbed
SCENARIOS: dict[str, tuple[list[tuple[str, ...]], str]] = {
    "one run": ([("lora.ratio=4", "seed=0")], "command"),
    "sweep, its command": ([(*SWEEP, *RATIOS)], "command"),
    "sweep, a worker": ([(*SWEEP, *RATIOS)], "worker"),
    "sweep, all at once": ([(*SWEEP, *RATIOS)], "group"),
    "two sweeps on one store": ([(*SWEEP, *RATIOS), (*SWEEP, "lora.ratio=4,16", "seed=0,1,2")], "any"),
    "a sweep that pauses, and one that does not": (
        [(*SWEEP, *RATIOS, "train.pause_at=0.5"), (*SWEEP, *RATIOS)], "any"
    ),
    "three sweeps and a run": (
        [(*SWEEP, *RATIOS), (*SWEEP, "lora.ratio=16,4", "seed=0,1,2"), (*SWEEP, "lora.ratio=1", "seed=2,1"),
         ("lora.ratio=4", "seed=0")],
        "any",
    ),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)
COUNTS = ("lost", "different", "repeated", "left over", "other ends")
LONGEST = 900.0  # seconds until a command that does not end counts as an error
EXPECTED = {0, 1, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


def start(store: Path, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """The command in a session of its own; its output is in the store's parent."""
    log = store.parent / "output.txt"
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *RUN, f"store={store}", *overrides],
            stdout=stream, stderr=stream, cwd=store.parent, start_new_session=True,
        )  # fmt: skip


def digest(run: Path) -> str:
    """Of all in a run's folder that a seed determines."""
    total = hashlib.sha256()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        total.update(json.dumps({k: v for k, v in json.loads(line).items() if k != "seconds"}).encode())
    for path in [*sorted((run / "adapter").glob("*.safetensors")), run / "predictions.parquet"]:
        total.update(path.read_bytes())
    total.update(json.dumps(json.loads((run / "record.json").read_text())["metrics"]).encode())
    return total.hexdigest()


def records(store: Path) -> dict[str, bytes]:
    """{run: its record} of the runs that have one."""
    found = {}
    for path in store.glob("runs/*/record.json"):
        content = path.read_bytes()
        if json.loads(content)["status"] == "success":
            found[path.parent.name] = content
    return found


def targets(running: list[subprocess.Popen[bytes]], kind: str, draw: random.Random) -> list[psutil.Process]:
    """The processes that get the signal: one command, one of its descendants, or a whole tree."""
    command = psutil.Process(draw.choice(running).pid)
    children = command.children(recursive=True)
    if kind == "group":
        return [command, *children]
    if kind == "worker":
        return [draw.choice(children)] if children else []
    return [draw.choice([command, *children])] if kind == "any" else [command]


def disturb(running: list[subprocess.Popen[bytes]], kind: str, sent: signal.Signals, draw: random.Random) -> bool:
    """Sends one signal; False where the process was gone, or had no worker yet."""
    try:
        chosen = targets(running, kind, draw)
        for process in chosen:
            process.send_signal(sent)
        if sent == signal.SIGSTOP:
            time.sleep(1)
            for process in chosen:
                process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return False
    return bool(chosen)


def soak(scenario: str, sent: signal.Signals, times: int, whole: dict[str, str], seed: int) -> Counter[str]:
    """The counts of one scenario under `times` signals."""
    draw = random.Random(f"{scenario} {sent} {seed}")
    commands, kind = SCENARIOS[scenario]
    found: Counter[str] = Counter(signals=0)
    written: dict[str, bytes] = {}

    def look() -> None:
        for name, content in records(store).items():
            found["repeated"] += written.setdefault(name, content) != content
            written[name] = content

    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        store = Path(folder) / "store"
        running: dict[int, subprocess.Popen[bytes]] = {}
        while found["signals"] < times:
            for i, overrides in enumerate(commands):
                if i in running and (status := running[i].poll()) is not None:
                    found["other ends"] += status not in EXPECTED
                    del running[i]
                if i not in running:
                    running[i] = start(store, overrides)
            time.sleep(draw.uniform(0.05, 6.0))
            alive = [process for process in running.values() if process.poll() is None]
            if alive and disturb(alive, kind, sent, draw):
                found["signals"] += 1
                if draw.random() < 0.5:  # half of the commands start again while others still end
                    time.sleep(draw.uniform(0, 2))
            look()
            if len(written) == len(expected(commands, whole)) and found["signals"] < times:
                finish(running, found)
                found += compare(store, commands, whole)
                subprocess.run(["rm", "-rf", str(store)], check=True)
                written.clear()
        finish(running, found)
        for i, overrides in enumerate(commands):
            running[i] = start(store, overrides)
        finish(running, found, expected_statuses={0})
        look()
        found += compare(store, commands, whole)
        if any(found[name] for name in COUNTS):
            print(
                scenario,
                sent.name,
                dict(found),
                (store.parent / "output.txt").read_text()[-3000:],
                sep="\n",
                file=sys.stderr,
            )
    return found


def finish(
    running: dict[int, subprocess.Popen[bytes]], found: Counter[str], expected_statuses: set[int] = EXPECTED
) -> None:
    """Waits for every command."""
    for process in running.values():
        try:
            status = process.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = 9999
        found["other ends"] += status not in expected_statuses
    running.clear()


def expected(commands: list[tuple[str, ...]], whole: dict[str, str]) -> list[str]:
    """The names of the runs that the commands make."""
    wanted = set()
    for overrides in commands:
        values = dict(each.split("=") for each in overrides if each.startswith(("lora.ratio=", "seed=")))
        for ratio in values["lora.ratio"].split(","):
            wanted |= {name for seed in values["seed"].split(",") for name in whole if f"-x{ratio}-s{seed}-" in name}
    return sorted(wanted)


def compare(store: Path, commands: list[tuple[str, ...]], whole: dict[str, str]) -> Counter[str]:
    """What is lost, different or left over in a store whose commands have ended."""
    found: Counter[str] = Counter()
    done = records(store)
    wanted = expected(commands, whole)
    found["lost"] = sum(name not in done for name in wanted)
    found["different"] = sum(name in done and digest(store / "runs" / name) != whole[name] for name in wanted)
    left = [*store.rglob(".*.tmp"), *store.glob("runs/*/checkpoint/*")]
    left += [path for path in store.glob("runs/*") if path.name not in done]
    left = [path for path in left if store / "cache" not in path.parents]
    if left:
        print("left over:", *left, sep="\n", file=sys.stderr)
    found["left over"] = len(left)
    return found


def undisturbed() -> dict[str, str]:
    """{run: its digest} of every run of the scenarios."""
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        store = Path(folder) / "store"
        commands = {0: start(store, (*SWEEP, "lora.ratio=1,4,16", "seed=0,1,2"))}
        finish(commands, Counter(), expected_statuses={0})
        return {name: digest(store / "runs" / name) for name in records(store)}


def main() -> None:
    """Soaks every scenario with every signal and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="scenarios that run side by side")
    given = parser.parse_args()
    whole = undisturbed()
    assert len(whole) == 9, whole
    cells = [(scenario, sent) for scenario in SCENARIOS for sent in SIGNALS]
    shares = [given.signals // len(cells) + (i < given.signals % len(cells)) for i in range(len(cells))]
    print("| scenario | signal | sent | " + " | ".join(COUNTS) + " |\n|" + "---|" * (3 + len(COUNTS)), flush=True)
    total: Counter[str] = Counter()
    with concurrent.futures.ThreadPoolExecutor(given.at_once) as pool:
        jobs = [pool.submit(soak, *cell, times, whole, given.seed) for cell, times in zip(cells, shares, strict=True)]
        for (scenario, sent), job in zip(cells, jobs, strict=True):
            found = job.result()
            total += found
            name = "STOP, CONT" if sent == signal.SIGSTOP else sent.name.removeprefix("SIG")
            counts = " | ".join(str(found[key]) for key in COUNTS)
            print(f"| {scenario} | {name} | {found['signals']} | {counts} |", flush=True)
    print(f"| all | | {total['signals']} | " + " | ".join(str(total[key]) for key in COUNTS) + " |")
    sys.exit(any(total[key] for key in COUNTS))


if __name__ == "__main__":
    main()
