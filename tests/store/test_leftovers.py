"""Old temporary files go, and nothing else."""

import os
import time
from pathlib import Path

from loralab.store.leftovers import OLD_SECONDS, remove_old_temporaries


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds), follow_symlinks=False)


def test_only_old_temporaries_of_caches_and_diffs_are_removed(tmp_path: Path) -> None:
    for name in ("cache/tokens", "cache/digests", "cache/corpora/.a.x.tmp", "cache/corpora/.b.x.tmp", "diffs", "runs"):
        (tmp_path / name).mkdir(parents=True)
    old = ["cache/tokens/.a.npz.x.tmp", "cache/digests/.d.x.tmp", "diffs/.e.x.tmp", "cache/corpora/.a.x.tmp/train.npy"]
    kept = ["cache/tokens/a.npz", "cache/corpora/.b.x.tmp/train.npy", "runs/.record.json.x.tmp", "diffs/e.diff"]
    for name in (*old, *kept):
        (tmp_path / name).touch()
        aged(tmp_path / name, OLD_SECONDS + 60)
    (tmp_path / "cache/tokens/.new.npz.x.tmp").touch()
    (tmp_path / "cache/corpora/.b.x.tmp/heldout.npy").touch()  # it is still being written
    for folder in ("cache/corpora/.a.x.tmp", "cache/corpora/.b.x.tmp"):
        aged(tmp_path / folder, OLD_SECONDS + 60)
    remove_old_temporaries(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "cache/tokens/.new.npz.x.tmp", "cache/corpora/.b.x.tmp/heldout.npy"}
    assert not (tmp_path / "cache/corpora/.a.x.tmp").exists()


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    aged(tmp_path / "mine", OLD_SECONDS + 60)
    link = tmp_path / "cache" / ".a.x.tmp"
    link.symlink_to(tmp_path / "mine")
    aged(link, OLD_SECONDS + 60)
    remove_old_temporaries(tmp_path)
    assert (tmp_path / "mine" / "file").exists()


def test_a_store_that_is_not_there_has_none(tmp_path: Path) -> None:
    remove_old_temporaries(tmp_path / "store")
    assert not (tmp_path / "store").exists()
