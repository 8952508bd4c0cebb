"""<store>/sweeps/<ID>.json: which runs a sweep has, written when it begins, so that it can be shown again."""

import difflib
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.errors import UserError
from loralab.files import read_regular, write_json
from loralab.store.run_directory import refuse_missing, run_hash
from loralab.store.strict_json import parse
from loralab.sweeps.grid import axes as axes_of

if TYPE_CHECKING:
    from loralab.sweeps.study import Study

__all__ = ["LAST", "SweepFile", "find_sweep", "sweep_id"]

FOLDER = "sweeps"
LAST = "last"
"""What names the sweep that began last."""
_LISTED = 6  # IDs in an error's line


@dataclass(frozen=True)
class SweepFile:
    """One sweep. study: the name of its file in sweeps/, None for a sweep of the command line.

    axes: the keys that vary; metric: what its second stage selects by, None where it has none; runs: the names of the
    first stage's runs, and of those on fresh seeds once they are known; free: whether each axis varies by itself, as
    other packages' sweepers draw values, so that none follows from another; began: seconds since the epoch.
    """

    id: str
    study: str | None
    axes: tuple[str, ...]
    metric: str | None
    runs: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    free: bool = False
    began: float = field(default_factory=time.time)

    @classmethod
    def of(cls, study: "Study") -> "SweepFile":
        """The sweep of a study, or of a command line; plans its runs, and raises what that raises."""
        runs = tuple(dict.fromkeys(cell.run for cell in study.first_cells()))
        confirm, axes = study.spec.confirm, tuple(axes_of(study.grid))
        metric = None if confirm is None else confirm.select
        return cls(sweep_id(study.name or "sweep", runs), study.name, axes, metric, runs)

    def with_fresh(self, runs: Collection[str]) -> "SweepFile":
        return replace(self, fresh=tuple(runs))

    def write(self, store: Path) -> None:
        """Writes the file; raises OSError where the store cannot be written to."""
        write_json(store / FOLDER / f"{self.id}.json", asdict(self))


def sweep_id(name: str, runs: Collection[str]) -> str:
    """`first-0123456789`: the same for the same runs of a first stage, so that a sweep that goes on keeps its ID."""
    return f"{name.replace('/', '_')}-{run_hash({'runs': sorted(set(runs))})}"


def find_sweep(store: Path, wanted: str) -> SweepFile:
    """The sweep with this ID, with this hash at its end, or with a beginning of either; or `last`.

    Raises UserError where not exactly one has it, and for a damaged file.
    """
    refuse_missing(store)
    files = sorted((store / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(
            f"sweep: {store / FOLDER} has no sweep yet; each multirun is noted there when it begins; "
            "`loralab sweep all` shows every run of the store as one"
        )
    if wanted == LAST:
        return _read(files[-1])
    names = {path.stem: path for path in files}
    hits = [name for name in names if wanted in (name, name.rsplit("-", 1)[-1])]
    hits = hits or [name for name in names if name.startswith(wanted) or name.rsplit("-", 1)[-1].startswith(wanted)]
    if len(hits) == 1:
        return _read(names[hits[0]])
    if hits:
        raise UserError(f"sweep: {wanted!r} names {len(hits)} sweeps: {_listed(hits)}; name one, or `last`")
    near = difflib.get_close_matches(wanted, [LAST, *names], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"sweep: no sweep is called {wanted!r} in {store / FOLDER}; there are {_listed(list(names))}{hint}")


def _listed(names: list[str]) -> str:
    """The latest first."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[: -_LISTED - 1 : -1]) + more


def _read(path: Path) -> SweepFile:
    try:
        values: Any = parse(read_regular(path))
        return _checked(values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is damaged ({why}); the sweep's command writes it again") from error


def _checked(values: Mapping[str, Any]) -> SweepFile:
    texts = {name: tuple(values[name]) for name in ("axes", "runs", "fresh")}
    several = [values["id"], *texts["axes"], *texts["runs"], *texts["fresh"]]
    optional = [value for value in (values["study"], values["metric"]) if value is not None]
    if not all(isinstance(text, str) for text in (*several, *optional)):
        raise TypeError("its names are no texts")
    if any("/" in run or run in ("", ".", "..") for run in (*texts["runs"], *texts["fresh"])):
        raise ValueError("a run's name leads out of the store")
    began, free = float(values["began"]), bool(values.get("free"))  # a file of an older version has no `free`
    return SweepFile(values["id"], values["study"], metric=values["metric"], began=began, free=free, **texts)
