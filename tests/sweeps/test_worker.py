"""Workers as processes: they end with their parent, and an interrupt at a terminal does not reach them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30  # time limit on a busy machine


PARENT = """
import sys, time
from loralab.sweeps.pool import Pool
from tests.sweeps.jobs import prepare

if __name__ == "__main__":
    pool = Pool([{}] * 3, prepare, None, timeout=None)
    pool.start(3)
    while len(pool.idle()) < 3:
        list(pool.events(0.05))
    _, running, hanging = pool.idle()
    pool.give(running, "running", ("stop", sys.argv[1]))
    pool.give(hanging, "hanging", ("hang", 3600))
    heard = 0
    while heard < 2:
        heard += len(list(pool.events(0.05)))
    print(*(worker.process.pid for worker in pool.workers.values()), pool.folder, flush=True)
    time.sleep(3600)
"""


def test_workers_end_with_a_killed_parent_and_a_run_writes_its_checkpoint_first(tmp_path: Path) -> None:
    script, checkpoint = tmp_path / "parent.py", tmp_path / "checkpoint"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(checkpoint)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        *pids, folder = parent.stdout.readline().split()
        workers = [psutil.Process(int(pid)) for pid in pids]
        assert len(workers) == 3 and Path(folder).is_dir() and not checkpoint.exists()
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(workers, timeout=SECONDS)
    assert not alive
    assert checkpoint.exists() and not Path(folder).exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_an_interrupt_at_a_terminal_reaches_no_worker_not_even_the_first() -> None:
    """In a fresh process: with its first child multiprocessing starts a tracker, which unblocks the signal."""
    code = (
        "from loralab.sweeps.pool import Pool; from tests.sweeps.jobs import prepare\n"
        "pool = Pool([{}, {}], prepare, None, timeout=None); pool.start(2)\n"
        "for worker in pool.workers.values(): print(open(f'/proc/{worker.process.pid}/status').read())\n"
        "pool.close()"
    )
    settings = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    said = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True).stdout
    blocked = [int(line.split()[1], 16) for line in said.splitlines() if line.startswith("SigBlk")]
    assert [mask >> (signal.SIGINT - 1) & 1 for mask in blocked] == [1, 1]
