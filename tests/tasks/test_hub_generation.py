"""GSM8K, SAMSum and E2E read from a genuine hub cache; if files are missing, the error names task=pairs."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from loralab.errors import UserError
from loralab.tasks import Pairs, RawTask, hub
from tests.tasks.hub_layout import COMMIT, serve, snapshot

Read = Callable[..., RawTask[Pairs]]
CONVERTED = "refs/convert/parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an offline hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.commit.cache_clear()
    yield tmp_path / "hub"
    hub.commit.cache_clear()


def _parquet(path: Path, **columns: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _e2e(root: Path) -> None:
    for part in ("train", "validation", "test"):
        facts = [f"name[{part} {i // 3}]" for i in range(12)]
        _parquet(
            root / "default" / part / "0000.parquet",
            meaning_representation=facts, human_reference=[f"{part} said {i}" for i in range(12)],
        )  # fmt: skip


def test_gsm8k_has_a_validation_split_cut_from_train(cache: Path, read: Read) -> None:
    folder = snapshot(cache, repository="openai/gsm8k")
    for part, count in (("train", 60), ("test", 12)):
        answers = [f"think {i}\n#### {i}" for i in range(count)]
        path = folder / "main" / f"{part}-00000-of-00001.parquet"
        _parquet(path, question=[f"{part} question {i}" for i in range(count)], answer=answers)
    task = read("gsm8k", revision="main")
    assert list(task.splits) == ["train", "validation", "test"] and task.metrics == ("number_match",)
    assert [len(pairs) for pairs in task.splits.values()] == [54, 6, 12]
    for part, pairs in task.splits.items():
        source = "test" if part == "test" else "train"
        assert pairs.contexts == [f"{source} question {row}" for row in pairs.rows]
        assert pairs.references == [(f"think {row}\n#### {row}",) for row in pairs.rows]
    assert sorted(np.concatenate([task.splits[part].rows for part in ("train", "validation")])) == list(range(60))


def test_samsum_leaves_out_a_dialogue_without_text(cache: Path, read: Read) -> None:
    folder = snapshot(cache, repository="knkarthick/samsum")
    for part in ("train", "validation", "test"):
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "dialogue", "summary"])
            writer.writerows([i, "" if i == 2 else f"A: hi, {i}\nB: bye", f"{part} {i}"] for i in range(5))
    task = read("samsum", revision="main")
    assert task.metrics[0] == "rougeL"
    for part, pairs in task.splits.items():
        assert pairs.rows.tolist() == [0, 1, 3, 4]
        assert pairs.contexts[2] == "A: hi, 3\nB: bye" and pairs.references[2] == (f"{part} 3",)


def test_e2e_gathers_the_references_of_one_context_but_in_training(cache: Path, read: Read) -> None:
    _e2e(snapshot(cache, repository="tuetschek/e2e_nlg", revision=CONVERTED))
    task = read("e2e", revision=CONVERTED)
    assert task.metrics[0] == "bleu" and len(task.splits["train"]) == 12
    assert task.splits["train"].references[1] == ("train said 1",)
    test = task.splits["test"]
    assert test.contexts == [f"name[test {i}]" for i in range(4)] and test.rows.tolist() == [0, 3, 6, 9]
    assert test.references[1] == ("test said 3", "test said 4", "test said 5")


def test_a_repository_with_a_script_alone_names_task_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, identity: Callable[..., dict[str, str]]
) -> None:
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "e2e_nlg.py").write_text("import datasets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve(tmp_path / "script", "tuetschek/e2e_nlg") as (endpoint, _):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert identity("e2e", revision=CONVERTED) == {"data": COMMIT}
        with pytest.raises(UserError, match=r"tuetschek/e2e_nlg has no default/train/0000\.parquet .* for task=pairs$"):
            read("e2e", revision="main")
        _e2e(tmp_path / "script")
        assert len(read("e2e", revision=CONVERTED).splits["test"]) == 4


def test_without_hub_and_cache_there_is_one_line(read: Read) -> None:
    with pytest.raises(
        UserError, match=r"task=gsm8k: the data set openai/gsm8k \(revision main\) is neither at the hub"
    ):
        read("gsm8k", revision="main")
    with pytest.raises(UserError, match=r"task\.revision: got null; samsum comes from the hub"):
        read("samsum")
