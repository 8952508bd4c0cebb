"""Reproduces a committed result: trains randomly drawn runs of a study's CSV again and compares the scores.

    python benchmarks/again.py ratio --runs 10

Uses a temporary store, the study's configuration, and one thread, as in the pool. The same code on the same kind of CPU
gives the same numbers. Another CPU may differ in the last bits of a step, and then by seed noise.
"""

import argparse
import tempfile
from pathlib import Path

from loralab.runs.run import run
from loralab.studies import results
from loralab.sweeps.collect import table
from loralab.sweeps.study import open_study

SCORES = ("validation/loss", "validation/accuracy", "test/accuracy", "train/loss")


def again(study_name: str, runs: int, seed: int, store: Path) -> float:
    """The largest absolute difference of any score between the CSV and the new runs; prints each run."""
    frame = results.load_results(study_name)
    one_each = frame[frame["stage"] == "grid"].drop_duplicates("hash", keep="last")
    wanted = one_each.sample(min(runs, len(one_each)), random_state=seed)
    largest = 0.0
    with open_study(study_name, ["train.threads=1"], store=store) as study:
        cells = {cell.run.rpartition("-")[2]: cell for cell in study.first_cells()}
        for row in wanted.to_dict("records"):
            cell = cells[row["hash"]]
            run(study.planned(cell.overrides).config)
            found = table(store, [cell]).iloc[0]
            scores = [score for score in SCORES if score in row]
            apart = max(abs(found[score] - row[score]) for score in scores)
            largest = max(largest, apart)
            shown = "  ".join(f"{score} {row[score]:.6g} {found[score]:.6g}" for score in scores)
            print(f"{row['hash']}  {shown}  apart {apart:.1e}", flush=True)
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="which runs are drawn")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        largest = again(given.study, given.runs, given.seed, Path(folder))
    print(f"largest difference: {largest:.1e}")


if __name__ == "__main__":
    main()
