"""Seconds to analyse one layer's update: all of `loralab.inspect.spectra`, for two adapters of rank 64 and W.

python benchmarks/spectra.py --width 4096 --rank 64 --threads 2. The SVDs of W and W + delta W, which alone grow with
the cube of the width, are timed with --svd (minutes at 4096). Prints one JSON object: wall seconds, and CPU seconds
of all threads. Other load on the machine does not increase the CPU seconds, but threads that wait for each other do.
"""

import argparse
import json
import os
import time
from collections.abc import Callable


def main() -> None:
    """Prints the seconds of each part, the minimum of three repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("width", 4096), ("rank", 64), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--svd", action="store_true", help="time the SVD of W too")
    given = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(given.threads)  # read when numpy is imported
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    print(json.dumps({name: seconds(given.width, given.rank, clock, svd=given.svd) for name, clock in clocks.items()}))


def seconds(width: int, rank: int, clock: Callable[[], float], *, svd: bool) -> dict[str, float]:
    """Part -> seconds, with their sum, without the SVD, as `all`."""
    import numpy as np

    from loralab.inspect import spectra

    rng = np.random.default_rng(0)
    A, other_A = (rng.standard_normal((rank, width), dtype=np.float32) for _ in range(2))
    B, other_B = (rng.standard_normal((width, rank), dtype=np.float32) for _ in range(2))
    W = rng.standard_normal((width, width), dtype=np.float32)
    left = np.eye(width)  # in place of W's singular vectors, whose cost is not timed here
    first, second = spectra.thin_svd(A, B, 1.0), spectra.thin_svd(other_A, other_B, 1.0)
    control = spectra.random_basis(width, rank, rng)
    parts: dict[str, Callable[[], object]] = {
        "thin_svd of both": lambda: (spectra.thin_svd(A, B, 1.0), spectra.thin_svd(other_A, other_B, 1.0)),
        "bases of A and B": lambda: (spectra.right_basis(A), spectra.left_basis(B)),
        "phi of three sides": lambda: [
            spectra.similarity(one, other)
            for one, other in ((first.U, second.U), (first.V, second.V), (first.V, control))
        ],
        "distance": lambda: spectra.grassmann(first.U, second.U),
        "random control": lambda: spectra.random_basis(width, rank, rng),
        "amplification": lambda: spectra.amplification(*first, W),
        "ranks and energy": lambda: [f(first.S) for f in (spectra.effective_rank, spectra.stable_rank, spectra.energy)],
        "intruders among given vectors": lambda: spectra.intruders_among(left, first.U[:, :10], 0.5),
    }
    found = {name: _least(part, clock) for name, part in parts.items()}
    found["all"] = sum(found.values())
    if svd:
        found["SVD of W"] = _least(lambda: spectra.left_basis(W), clock, repeats=1)
    return {name: round(value, 4) for name, value in found.items()}


def _least(part: Callable[[], object], clock: Callable[[], float], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = clock()
        part()
        times.append(clock() - start)
    return min(times)


if __name__ == "__main__":
    main()
