"""Start-up cost of each command: seconds, CPU seconds and the number of imported modules.

    python benchmarks/startup.py                      this checkout, five times each
    python benchmarks/startup.py --against ../other   alternates with another checkout

Every command runs in a fresh process and is measured from the process's start to its end; a training to the end of its
first optimizer step, a worker until it is ready for a job. In a table of two checkouts, `against` comes first. To list
the imports of a command: python -X importtime -m loralab.cli.main runs
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
TINY = ("model=tiny", "task=trec", "train.steps=1", "train.device=cpu", "tracker=none")

# Runs a command inside a process that reports when it ends, or when its first optimizer step is done.
PROBE = """
import atexit, os, runpy, sys, time
def report(*_):
    used = os.times()
    with open(os.environ["STARTUP_REPORT"], "w") as stream:
        print(time.time(), used.user + used.system, len(sys.modules), file=stream)
    if _:
        os._exit(0)
kind, *sys.argv = sys.argv[1:]
sys.path[0] = os.getcwd()
atexit.register(report)
class Watch:
    def find_spec(self, name, *_):
        if name == "transformers":  # by now the command has imported torch
            sys.meta_path.remove(self)
            from torch.optim.optimizer import register_optimizer_step_post_hook
            register_optimizer_step_post_hook(report)
if kind == "first step":
    sys.meta_path.insert(0, Watch())
if kind == "worker":
    import loralab.sweeps.worker
    from loralab.sweeps.run_worker import Shared, prepare
    prepare(Shared(None, "train", "train", "main"), print)
elif kind == "loralab":
    from loralab.cli.main import main
    sys.exit(main(sys.argv[1:]))
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""

COMMANDS: dict[str, tuple[str, ...]] = {
    "train.py model=tiny task=trec: first step": ("first step", "train.py", *TINY),
    "train.py --help": ("train.py", "train.py", "--help"),
    "a sweep's worker": ("worker", ""),
    "loralab --help": ("loralab", "", "--help"),
    "loralab runs": ("loralab", "", "runs"),
    "loralab show RUN": ("loralab", "", "show", "tiny"),
    "loralab status first": ("loralab", "", "status", "first"),
    "loralab figure first": ("loralab", "", "figure", "first"),
}


def measure(checkout: Path, command: tuple[str, ...], store: Path) -> tuple[float, float, int]:
    """Seconds, CPU seconds and modules of one process."""
    report = store / "report"
    own = {"PYTHONPATH": str(checkout / "src"), "STARTUP_REPORT": str(report), "OMP_NUM_THREADS": "1"}
    scratch = store / f"scratch-{time.time_ns()}" if command[0] == "first step" else store  # not trained twice
    environment = {**os.environ, **own, "LORALAB_STORE": str(scratch)}
    began = time.time()
    process = [sys.executable, "-c", PROBE, *command]
    subprocess.run(process, cwd=checkout, env=environment, check=True, capture_output=True)
    ended, used, modules = report.read_text().split()
    return float(ended) - began, float(used), int(modules)


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--only", default="", help="commands whose name has this in it")
    given = parser.parse_args()
    checkouts = [*([given.against.resolve()] if given.against else []), HERE]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        train = [sys.executable, "train.py", *TINY, f"store={store}"]
        subprocess.run(train, cwd=HERE, check=True, capture_output=True)
        print(f"{'command':44} {'seconds':>16} {'CPU seconds':>16} {'modules':>12}")
        for name, command in COMMANDS.items():
            if given.only in name:
                runs = [[measure(each, command, store) for each in checkouts] for _ in range(given.repeats)]
                found = [[f"{median(run[i][j] for run in runs):.4g}" for i in range(len(checkouts))] for j in range(3)]
                print(f"{name:44} {' '.join(found[0]):>16} {' '.join(found[1]):>16} {' '.join(found[2]):>12}")


if __name__ == "__main__":
    main()
