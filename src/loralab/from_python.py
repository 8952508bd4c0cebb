"""What Python code does with loralab: train a run, train a sweep, and load what is trained."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from loralab import entries
from loralab.config import from_python as arguments
from loralab.config.arguments import translated
from loralab.config.compose import configs
from loralab.config.explain import explain
from loralab.config.schema import Config, from_hydra
from loralab.errors import RunsFailed, UserError
from loralab.imports import without_collection
from loralab.store.record import FailedRecord, PausedRecord, Record, split_scores
from loralab.store.run_directory import RunDirectory, directory_of, find, record_of, status
from loralab.studies.tables import Tables, study_tables
from loralab.sweeps.child import passed_on
from loralab.sweeps.collect import logged
from loralab.sweeps.study import open_sweep

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from loralab.runs.load import TrainedRun

__all__ = ["Run", "load_run", "sweep", "train"]

# In a notebook without ipywidgets, transformers' import warns that its bars, of which there are none, will be plain.
warnings.filterwarnings("ignore", message="IProgress not found")


class Run:
    """A run of a store, finished or not: its record, scores and curves, and the model that it trained."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.status}>"

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.directory.path

    @property
    def name(self) -> str:
        """The name of its directory, which ends with its hash."""
        return self.path.name

    @property
    def status(self) -> str:
        """success, diverged, paused at step N of M, failed, running, cut off at step N, missing or damaged."""
        return status(self.directory)

    @property
    def record(self) -> Record | PausedRecord | FailedRecord:
        """record.json: config, metrics, parameter groups, time, versions. UserError where there is none yet."""
        return record_of(self.directory)

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores at the last step by their names in a study's table, as `test/accuracy`; and `best/test/accuracy`.

        `best/` is the step with the best validation score. Empty for a run that failed.
        """
        record, found = self.record, dict[str, float | None]()
        if record["status"] == "failed":
            return found
        for split, scores in split_scores(record["metrics"]).items():
            for prefix, values in (("", scores["last"]), ("best/", scores["best"])):
                found |= {f"{prefix}{split}/{name}": value for name, value in (values or {}).items() if name != "step"}
        return found

    @property
    def curves(self) -> pd.DataFrame:
        """One row per logged value, as far as the run came: step, split, name, value, seconds (since the start)."""
        lines = list(logged(self.path))
        rows = [
            (line["step"], line["split"], name, value, line.get("seconds"))
            for line in lines
            for name, value in line["values"].items()
        ]
        frame = pd.DataFrame(rows, columns=["step", "split", "name", "value", "seconds"])
        return frame.astype({"step": int, "split": str, "name": str, "value": float, "seconds": float})

    @property
    def predictions(self) -> pd.DataFrame:
        """Its predictions.parquet: a row for each test example, at the last and the best step."""
        if not self.directory.predictions.is_file():
            raise UserError(f"{self.name}: has no predictions ({self.status})")
        return pd.read_parquet(self.directory.predictions)

    @cached_property
    def _restored(self) -> "TrainedRun":
        with without_collection():
            from loralab.runs.load import restore

        return restore(self.directory)

    @property
    def model(self) -> "PreTrainedModel":
        """The model of the last step, in fp32 on the CPU and in eval mode; it is loaded when it is first asked for.

        `model(**batch).logits` equal the logits in predictions.parquet, up to the run's precision. The training data is
        not needed. UserError for a run that did not end in success, and where its backbone has changed or is gone.
        """
        return self._restored.backbone.model

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The model's tokenizer."""
        return self._restored.backbone.tokenizer

    def __iter__(self) -> Iterator[Any]:
        """The model and its tokenizer: `model, tokenizer = load_run(...)`."""
        yield self.model
        yield self.tokenizer

    def predict(self, texts: Iterable[Any]) -> pd.DataFrame:
        """What `loralab predict` gives, a row for each text: prediction, and for classes probability and p(NAME).

        texts: strings, such as a column of a DataFrame, whose index is kept; tuples of two where the run reads pairs. A
        missing text gets no prediction.
        """
        from loralab.runs.predict import TextPredictor

        rows = [text if isinstance(text, (str, tuple)) else None for text in texts]
        index = texts.index if isinstance(texts, pd.Series) else None
        return pd.DataFrame(TextPredictor(self._restored)(rows), index=index)

    def export(self, to: str | Path, *, merged: bool = False, dtype: str = "fp32") -> Path:
        """Writes an adapter for PEFT, or with `merged` a checkpoint for transformers; gives its folder."""
        from loralab.runs.export import export

        export(self.directory, Path(to), merged=merged, dtype=dtype)
        return Path(to)


def load_run(run: str | Path, *, store: str | Path | None = None) -> Run:
    """The run with this directory, name or hash, or a beginning of name or hash that no other run has.

    run: also a folder that `loralab export` wrote with record.json; store: None for $LORALAB_STORE, else outputs.
    Raises UserError where not exactly one run has this name.
    """
    place = os.environ.get("LORALAB_STORE", "outputs") if store is None else store
    return Run(find(Path(place), str(run)))


def train(*settings: str | Mapping[str, Any], **named: Any) -> Run:
    """The run of these settings, trained in this process unless it is finished; its progress is printed.

    Each keyword is a setting of the command line: `train(model="tiny", seed=1)`. Dotted keys are written as texts or in
    mappings, which may be nested: `train("task=trec", {"lora.rank": 4}, optim={"lr": 1e-3})`.

    Raises UserError for a mistake, in one line. If it is interrupted, the run writes a checkpoint, and the same call
    goes on.
    """
    config = _config(arguments.settings(settings, named))
    with without_collection():
        from loralab.runs.run import run
        from loralab.training.signals import Interrupted
    try:
        record = run(config, wait=True)
    except Interrupted as interrupted:
        raise KeyboardInterrupt("a checkpoint is written; the same call goes on") from interrupted
    return Run(directory_of(Path(config.store), record["name"], record["run_id"]))


def sweep(*settings: str | Mapping[str, Any], **named: Any) -> Tables:
    """Trains a run for each combination of values, several at once, and gives their tables; failed runs are rows too.

    A list is an axis: `sweep(model="tiny", seed=[0, 1], lora={"ratio": [1, 4, 16]})`, and `sweeps="first"` a study. A
    setting that is a list itself takes a list of lists as an axis: `lora={"targets": [["q"], ["q", "v"]]}`. Everything
    else is as for `train`. The runs train in processes of their own, whose progress goes to standard error.

    Raises UserError for a mistake, and RunsFailed where no run has ended well.
    """
    texts = arguments.axes(settings, named)
    code, _, errors = passed_on([*entries.process("train"), "--multirun", *texts], whole=True)
    if code not in (0, 1):
        line = next((line for line in reversed(errors) if line.startswith("error: ")), f"error: exit status {code}")
        raise (UserError if code == 2 else RunsFailed)(line.removeprefix("error: ").strip())
    with open_sweep(texts) as study:
        try:
            return study_tables(study)
        except UserError as error:
            raise RunsFailed(str(error)) from error


def _config(texts: list[str]) -> Config:
    """The settings composed and checked, as by the command line; UserError for a mistake."""
    from hydra import compose

    flags, overrides = translated(texts)
    if "--multirun" in flags:
        raise UserError(f"train: got {' '.join(texts)}, which is a study; loralab.sweep trains it")
    try:
        with configs():
            return from_hydra(compose("config", [*flags, *overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
