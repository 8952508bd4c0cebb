"""Runs the quick tests under other conditions: other processors, threads, a load, other versions of libraries.

python tests/matrix.py settings                                  this environment on other processors, and busy
python tests/matrix.py versions                                  the oldest and the newest libraries of pyproject.toml
python tests/matrix.py versions --python 3.12 torch==2.11.0      the newest, with these requirements

Prints one row per condition, with passed, failed and skipped, and exits with 1 if a test failed. uv creates the
environments of other versions in .venv-versions/, with this environment's torch unless a requirement names another.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venv-versions"
QUICK = ("-m", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "-m", "not slow", "--tb", "short")
# The vector instructions that torch, oneDNN and MKL may use, and the threads of each of pytest's processes.
SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}  # more threads than cores, which would otherwise spin: as train.py sets it
SETTINGS = {
    "no AVX, 1 thread": SSE | {"OMP_NUM_THREADS": "1"},
    "AVX2, 2 threads": AVX2 | WAIT | {"OMP_NUM_THREADS": "2"},
    "this processor, 4 threads": WAIT | {"OMP_NUM_THREADS": "4"},
}
# Libraries of the plain installation whose oldest or newest version no test needs.
TOOLS = ("pytest", "pytest-xdist", "psutil", "playwright")


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Runs as many busy processes as there are cores."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(name: str, python: str, **settings: str) -> bool:
    """Runs the quick tests and prints their row; returns whether every test passed."""
    began = time.monotonic()
    done = subprocess.run(
        [python, *QUICK], cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    (ENVIRONMENTS / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}.log").write_text(done.stdout + done.stderr)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    cells = [str(counts.get(word, 0)) for word in ("passed", "failed", "error", "skipped")]
    print(f"| {name} | {' | '.join(cells)} | {(time.monotonic() - began) / 60:.1f} |", flush=True)
    for line in re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE)[:40]:
        print(f"    {line[:200]}", flush=True)
    return done.returncode == 0


def environment(name: str, python: str, resolution: str, requirements: Sequence[str]) -> str:
    """The interpreter of an environment with this checkout, its tests' libraries, and the packaged model and data."""
    folder = ENVIRONMENTS / name
    uv = [sys.executable, "-m", "uv"]
    names = {re.split(r"[=<>~!\[]", text)[0] for text in requirements}
    held = [f"torch=={metadata.version('torch')}"] if "torch" not in names else []
    held += [f"{tool}=={metadata.version(tool)}" for tool in TOOLS]
    found = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    settings = os.environ | ({"UV_FIND_LINKS": found} if found else {})
    install = [*uv, "pip", "install", "--quiet", "--python", str(folder)]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", python, str(folder)],
        [*install, "--resolution", resolution, "--editable", f"{ROOT}[test]", *held, *requirements],
        [*install, "--no-deps", "--requirement", str(ROOT / "requirements-demo.txt")],
    ):
        subprocess.run(command, cwd=ROOT, env=settings, check=True)
    return str(folder / "bin" / "python")


def main() -> int:
    """Runs the conditions that the command line selects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("settings", "versions"))
    parser.add_argument("requirements", nargs="*", help="of one environment in place of the oldest and the newest")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments, as uv finds it")
    asked = parser.parse_args()
    ENVIRONMENTS.mkdir(exist_ok=True)
    print("| condition | passed | failed | errors | skipped | minutes |\n|---|---|---|---|---|---|", flush=True)
    if asked.what == "settings":
        passed = [run(name, sys.executable, **settings) for name, settings in SETTINGS.items()]
        with load():
            passed.append(run("this processor, busy", sys.executable))
        return int(not all(passed))
    if asked.requirements:
        python = environment("chosen", asked.python, "highest", asked.requirements)
        return int(not run(f"newest, with {' '.join(asked.requirements)}", python))
    ends = {"oldest": "lowest-direct", "newest": "highest"}
    passed = [run(name, environment(name, asked.python, resolution, ())) for name, resolution in ends.items()]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
