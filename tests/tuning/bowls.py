"""A synthetic loss that plays the runs of a search with Optuna: nothing is trained."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loralab.tuning.optuna_search import OptunaSearch
from loralab.tuning.space import read_space
from loralab.tuning.trial import Observed, Settings, Trial

Store = dict[Settings, Observed]
BOWL = ("optim.lr=log(1e-4,1e-1)", "lora.ratio=log(0.25,64)")


def bowl(settings: Settings) -> float:
    """A minimum of .4 at lr 3e-3 and λ 4, with curvatures 10 to 1 as in real runs; seeds differ by .01."""
    values = dict(settings)
    rate, ratio = math.log2(values["optim.lr"] / 3e-3), math.log2(values.get("lora.ratio", 4) / 4)
    loss: float = 0.4 + 0.03 * rate**2 + 0.003 * ratio**2 + 0.01 * values["seed"]
    return loss


def train(store: Store, trial: Trial, final: Callable[[Settings], float] = bowl) -> None:
    """A run up to the trial's pause, validated every 10%; it diverges, at 10%, where its final loss is above 1.5."""
    loss, tenths = final(trial.settings), round(10 * trial.until)
    if loss > 1.5:
        store[trial.settings] = Observed(trial.settings, "diverged", ((0.1, 9.0),))
        return
    curve = tuple((i / 10, loss + 0.3 * (1 - i / 10)) for i in range(1, tenths + 1))
    store[trial.settings] = Observed(trial.settings, "success" if tenths == 10 else "paused", curve)


def search(folder: Path, *, space: Sequence[str] = BOWL, **options: Any) -> OptunaSearch:
    options = {"trials": 12, "command": ["task=trec"], **options}
    return OptunaSearch(read_space(space), path=folder / "optuna.journal", **options)


def finish(some: OptunaSearch, store: Store, at_once: int = 2) -> list[list[Trial]]:
    """Trains all that is asked for; returns what each `ask` gave."""
    asked = []
    while trials := some.ask(store, at_once):
        assert len(trials) <= at_once
        for trial in trials:
            known = store.get(trial.settings)
            assert known is None or (known.status == "paused" and known.reached < trial.until - 1e-9), trial
            train(store, trial)
        asked.append(trials)
        assert len(asked) < 300
    return asked


def cost(store: Store) -> float:
    return sum(observed.reached for observed in store.values())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "optuna.journal").read_text().splitlines()]
