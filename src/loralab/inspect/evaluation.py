"""What a run predicted, or predicts, for rows whose labels are known: of a split of its own data, or of a file.

The test splits' predictions with the saved weights are stored; those of other splits and files are made again, in
fp32.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from loralab import tasks
from loralab.config.checks import one_of
from loralab.config.stored import stored_config
from loralab.errors import UserError
from loralab.files import fingerprint
from loralab.inspect.classification import losses
from loralab.runs.build import objective
from loralab.runs.load import restore
from loralab.runs.objective import Predictor
from loralab.runs.outputs import Outputs, of_run, recorded
from loralab.runs.plan import read_again, replan, task_settings
from loralab.runs.predict import probabilities, workers
from loralab.store.predictions import read_predictions
from loralab.store.record import Record, kept
from loralab.store.run_directory import RunDirectory, refuse_paused, status
from loralab.tasks import local_labels, local_pairs
from loralab.tasks.local_files import texts
from loralab.tasks.metrics import applicable
from loralab.tasks.splits import Pairs, RawTask, Texts
from loralab.tasks.table_files import existing, read_table
from loralab.text import count, shown
from loralab.training.distributed import ALONE

__all__ = ["Evaluated", "of_file", "of_split"]

Array = NDArray[Any]
_FILE = "file"  # the split of a file's rows


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Predictions of labelled rows, an entry a row in truth, guesses, losses and where (the row's name).

    Of classes: ids, probabilities (n, classes), nats. Of numbers: (n,), (n,), squared errors. Of answers: the first
    reference, the answer, nats a token. wrong: for classes and for answers that are right or wrong by themselves, else
    None. scores: the task's metrics and the loss. left_out: {label that training never saw: its rows}, which are in
    none of these. texts: None where the data is gone, and then `gone` says why.
    """

    run: str
    what: str
    step: int
    outputs: Outputs
    truth: Array
    guesses: Array
    losses: Array
    wrong: Array | None
    scores: dict[str, float | None]
    where: Sequence[str]
    texts: Sequence[str] | None = None
    gone: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.truth)

    def worst(self, number: int) -> list[int]:
        """The rows with the largest losses, largest first; of answers that are right or wrong, wrong ones."""
        order = np.argsort(-self.losses, kind="stable")
        if self.outputs.kind == "generation" and self.wrong is not None:
            order = order[self.wrong[order]]
        return [int(row) for row in order[:number]]


def of_split(run: RunDirectory, split: str, *, device: str) -> Evaluated:
    """The predictions of a split of the run's own data, with its saved weights."""
    record = _finished(run)
    one_of("--split", split, list(record["rows"]))
    if split.startswith("test"):
        return _stored(run, record, split)
    return _predicted(run, read_again(run, record), split, device=device)


def of_file(run: RunDirectory, file: str, *, text: Sequence[str] | None, label: str | None, device: str) -> Evaluated:
    """The predictions of a file of labelled rows. text, label: its columns; None: their names in the run's own data."""
    record = _finished(run)
    settings = task_settings(stored_config(run.path / "config.yaml").task)
    own_text, own_label = tasks.columns(settings)
    if text is not None and len(text) != len(own_text):
        raise UserError(f"--text: got {', '.join(text)}; the run reads {count(len(own_text), 'column')}")
    columns = dict.fromkeys(text or own_text, "--text") | {label or own_label: "--label"}
    *of_texts, of_labels = columns
    table = read_table(path := existing("FILE", file), columns)
    outputs = _outputs(run, record)
    split: Any
    left_out = Counter[str]()
    if outputs.kind == "generation":
        split = local_pairs.pairs(table, of_texts, of_labels)
    else:
        cells = list(zip(*(texts(table, column, numbers=True) for column in of_texts), strict=True))
        rows = np.arange(len(table))
        if outputs.labels is None:
            split = Texts(cells, local_labels.scores(table, of_labels), rows)
        else:
            ids = {name: at for at, name in enumerate(outputs.labels)}
            names = local_labels.class_names(table, of_labels)
            found = np.array([ids.get(name, -1) for name in names])
            left_out = Counter(name for name in names if name not in ids)
            if left_out.total() == len(names):
                raise UserError(_all_strange(str(path), of_labels, left_out, outputs.labels))
            split = Texts(cells, found, rows).take(np.flatnonzero(found >= 0))
    names = [name for name in record["metrics"]["validation"]["last"] or () if name not in ("step", "loss")]
    task = RawTask(settings.name, outputs.kind, outputs.labels, {_FILE: split}, ())
    task = replace(task, metrics=applicable(names, task) or ("exact_match",))
    data = {"file": fingerprint([path]), "columns": " ".join(columns)}
    done = _predicted(run, task, _FILE, device=device, data=data)
    return replace(done, what=file, where=[table.where[row] for row in split.rows], left_out=left_out)


def _all_strange(path: str, column: str, labels: Counter[str], known: Sequence[str]) -> str:
    some = shown(", ".join(name for name, _ in labels.most_common(5)), longest=200)
    return (
        f"--label: no label in column '{shown(column)}' of {path} is one of the run's; got {some}; allowed: "
        f"{shown(', '.join(known), longest=200)}"
    )


def _finished(run: RunDirectory) -> Record:
    refuse_paused(run)
    record = run.finished()
    if record is None or record["status"] != "success":
        raise UserError(f"{run.path.name}: no finished run to evaluate ({status(run)})")
    return record


def _outputs(run: RunDirectory, record: Record) -> Outputs:
    known = recorded(record)
    return known or of_run(replan(run, record), record, run.model if run.model.is_dir() else run.adapter)


def _stored(run: RunDirectory, record: Record, split: str) -> Evaluated:
    """The predictions in predictions.parquet, with the record's scores, and the texts if the data is still there."""
    at, step = kept(record)
    table, outputs = read_predictions(run.predictions, split, at=at), _outputs(run, record)
    rows = table["row"].to_pylist()
    scores = {name: value for name, value in record["metrics"][split][at].items() if name != "step"}
    values: dict[str, Any]
    if outputs.kind == "generation":
        right = None if table["correct"].null_count else table["correct"].to_numpy()
        references = [references[0] for references in table["references"].to_pylist()]
        mean = table["loss"].to_numpy() / table["tokens"].to_numpy()
        values = _answered(references, table["text"].to_pylist(), mean, right)
    else:
        values = _labelled(outputs, table["label"].to_numpy(), np.stack(table["logits"].to_numpy()))
    texts, gone = None, None
    try:
        source = read_again(run, record).splits[split]
        of_row = dict(zip(source.rows.tolist(), _texts(source), strict=True))
        texts = [of_row[row] for row in rows]
    except (UserError, OSError, KeyError) as error:
        gone = str(error)
    return Evaluated(
        run=run.path.name, what=split, step=step, outputs=outputs, **values, scores=scores,
        where=[f"row {row}" for row in rows], texts=texts, gone=gone,
    )  # fmt: skip


def _predicted(
    run: RunDirectory, task: RawTask[Any], split: str, *, device: str, data: dict[str, str] | None = None
) -> Evaluated:
    """The model's predictions of one of the task's splits. data: the identity of data that are not the run's own."""
    trained = restore(run, device)
    plan = trained.plan
    if data is not None:
        plan = replace(plan, identity={**plan.identity, "task": {**plan.identity["task"], "data": data}})
    goal = objective(plan, task, trained.backbone)
    with workers(trained) as some:
        by = Predictor(cast(Any, trained.backbone.model), lambda: None, some, ALONE)
        predictions = goal.predict(split, by)
    rows = task.splits[split]
    if isinstance(rows, Pairs):
        mean, references = predictions.losses / predictions.tokens, [each[0] for each in rows.references]
        values = _answered(references, predictions.texts, mean, tasks.correct(task.metrics[0], predictions.texts, rows))
    else:
        values = _labelled(trained.outputs, rows.labels, predictions)
    return Evaluated(
        run=run.path.name, what=split, step=kept(trained.record)[1], outputs=trained.outputs, **values,
        scores=goal.scores(split, predictions), where=[f"row {row}" for row in rows.rows], texts=_texts(rows),
    )  # fmt: skip


def _labelled(outputs: Outputs, truth: Array, logits: NDArray[np.float32]) -> dict[str, Any]:
    if outputs.labels is None:
        guesses = logits[:, 0].astype(np.float64)
        return {"truth": truth, "guesses": guesses, "losses": (guesses - truth) ** 2, "wrong": None}
    p = probabilities(logits)
    return {"truth": truth, "guesses": p, "losses": losses(truth, p), "wrong": p.argmax(axis=1) != truth}


def _answered(references: list[str], answers: list[str], mean: Array, right: Array | None) -> dict[str, Any]:
    truth, guesses = (np.array(texts, dtype=object) for texts in (references, answers))
    wrong = None if right is None else ~right.astype(bool)
    return {"truth": truth, "guesses": guesses, "losses": mean, "wrong": wrong}


def _texts(rows: Texts | Pairs) -> list[str]:
    """Each row's context, or its texts with a stroke between."""
    return rows.contexts if isinstance(rows, Pairs) else [" / ".join(row) for row in rows.texts]
