"""The study `methods`: accuracy against the number of trained parameters, for every method and the head alone.

`python analysis/methods.py`: results/methods.csv -> figures/methods.{png,pdf} (LoRA, Table 2 and Figure 2)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    confirm_runs,
    interior,
    paired_difference,
    record_values,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.intervals import forest
from loralab.studies.questions import Claim, Question, gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "method", "lora.init", "lora.bias", "bottleneck.size", "prompt.tokens", "intrinsic.dim"]
AXES += ["task.eval_rows", "optim.head_lr", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "parameters", "seconds", "commit", "diff"]
METHODS = {
    "bitfit": "BitFit",
    "houlsby": "Houlsby",
    "pfeiffer": "Pfeiffer",
    "prefix": "prefix",
    "prompt": "prompt",
    "p_tuning": "P-tuning",
    "intrinsic": "random subspace",
    "lora": "LoRA",
    "lora_plus": "LoRA+",
    "dora": "DoRA",
    "rslora": "rsLoRA",
    "lora_prefix": "LoRA and prefix",
    "whole": "LoRA on all maps and biases",  # method=lora with lora.bias=all
    "full": "full fine-tuning",
    "head": "head alone",
}
SIZES = {
    "lora.rank": "r = {:g}",
    "bottleneck.size": "size {:g}",
    "prompt.tokens": "{:g} tokens",
    "intrinsic.dim": "d = {:g}",
}
HEAD, FULL, LORA = METHODS["head"], METHODS["full"], f"{METHODS['lora']} (r = 8)"
# The paper's numbers for LoRA and the other method: averages over GLUE, except for the prefix.
AGAINST = {
    "houlsby": ("RoBERTa-large: 88.6 against 86.4", 0.022),
    "pfeiffer": ("RoBERTa-large: 88.6 against 87.9", 0.007),
    "bitfit": ("RoBERTa-base: 87.2 against 85.2", 0.02),
    "prefix": ("GPT-3, MNLI: 91.7 against 89.5", 0.022),
}

Arms = dict[str, pd.DataFrame]  # by name; those of a method by size


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; parameters: trained parameters, without the head's."""
    trainable, head = (np.array(record_values(tables, "parameters", name)) for name in ("trainable", "head"))
    return select_columns(tables._replace(runs=tables.runs.assign(parameters=trainable - head)), KEPT)


def method_of(row: Any) -> str:
    """The key in METHODS."""
    return "whole" if row["lora.bias"] == "all" else str(row["method"])


def name_of(row: Any) -> str:
    """`LoRA (r = 8)`: the method, with the sizes that the sweep sets."""
    sizes = [text.format(row[key]) for key, text in SIZES.items() if row[key] == row[key]]
    return METHODS[method_of(row)] + (f" ({', '.join(sizes)})" if sizes else "")


def arms_of(frame: pd.DataFrame) -> Arms:
    rows = frame.to_dict("records")
    order = [list(METHODS).index(method_of(row)) for row in rows]
    named = frame.assign(name=[name_of(row) for row in rows], order=order)
    return split_arms(named.sort_values(["order", *SIZES]), ["name"])


def of_method(arms: Arms, method: str) -> Arms:
    return {name: own for name, own in arms.items() if method_of(own.iloc[0]) == method}


def size(own: pd.DataFrame) -> float:
    """An arm's trained parameters, without the head's."""
    return float(own["parameters"].dropna().iloc[0])


def nearest(arms: Arms, method: str) -> str:
    """The arm of a method with the size nearest to that of LoRA with r = 8, as a ratio."""
    found = of_method(arms, method)
    return min(found, key=lambda name: abs(np.log(size(found[name]) / size(arms[LORA]))))


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    gains = {name: paired_difference(own, arms[FULL], "test/accuracy") for name, own in arms.items()}
    names = sorted(arms, key=lambda name: -gains[name].estimate)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(plotting.DOUBLE, 0.185 * len(arms) + 1.2), sharey=True, width_ratios=(1.7, 1)
    )
    forest(left, names, {FULL: [gains[name] for name in names]}, scale=100, margin=0.005)
    for place, name in enumerate(names):
        each = 100 * (_by_seed(arms[name]) - _by_seed(arms[FULL]))
        left.plot(
            each, np.full(len(each), place), ".", color="0.65", ms=3, zorder=0, label="" if place else "each seed"
        )
        if size(arms[name]):
            right.plot(size(arms[name]), place, "o", color="black")
    for place in range(0, len(names), 2):
        right.axhspan(place - 0.5, place + 0.5, color="0.96", lw=0, zorder=-3)
    left.set(xlabel="points of accuracy", title=f"over {FULL} (right is better)")
    right.set(xscale="log", xlabel="trained parameters,\nwithout the head")
    right.tick_params(axis="y", length=0)
    handles, labels = left.get_legend_handles_labels()
    labels = ["mean and 95%" if label == FULL else label for label in labels]
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return figure


def _by_seed(own: pd.DataFrame) -> "pd.Series[float]":
    return confirm_runs(own).set_index("seed")["test/accuracy"]


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, sorted({len(own) for own in arms_of(grid).values()})))
    return (
        f"{shared(frame)}, the best of {trials} runs each; the head's rate is fixed, but for the head alone. Left: "
        f"difference on {confirm['seed'].nunique()} fresh seeds (grey dots), paired, 95% (Student t); grey: up to half "
        f"a point. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its size, selected rate, fresh scores, and differences from full and from the head alone."""
    arms = arms_of(frame)
    rows = []
    for name, own in arms.items():
        over = paired_difference(own, arms[HEAD], "test/accuracy")
        text = f"{100 * over.estimate:+.2f} [{100 * over.low:.2f}, {100 * over.high:.2f}]"
        scores = {**comparison_row(own, arms[FULL]), "over the head alone": text}
        rows.append({"arm": name, "parameters": f"{size(own):,.0f}", **scores, "interior": interior(own)})
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"arm": [name_of(row) for row in frame.to_dict("records")]}, index=frame.index)


def questions(frame: pd.DataFrame) -> list[Question]:
    """Each method at its size nearest to LoRA's with r = 8."""
    arms = arms_of(frame)
    if not {HEAD, FULL, LORA} <= arms.keys():
        return []
    where = f"({captions.tasks(frame)}, lr tuned for each)"

    def over(own: str, base: str, text: str, paper: str, number: float, *, exact: bool = False) -> Claim:
        rows = pd.concat([confirm_runs(arms[name]) for name in (own, base)])  # methods spread unlike one another
        found: Claim = gain(
            rows, own, base, arm="name", by=["task"], text=text, paper=paper, number=number, exact=exact
        )
        return found

    full = [over(LORA, FULL, LORA, "RoBERTa-base: 87.2 against 86.4", 0.008)]
    full += [over(name, FULL, name, "as expressive", 0.0, exact=True) for name in of_method(arms, "whole")]
    named = {nearest(arms, method): claimed for method, claimed in AGAINST.items() if of_method(arms, method)}
    others = [over(LORA, name, f"{name}, {size(arms[name]):,.0f}", *claimed) for name, claimed in named.items()]
    mine = f"does {LORA}, {size(arms[LORA]):,.0f} parameters, beat other methods {where}?"
    asked = [Question(f"does LoRA reach full fine-tuning {where}?", "LoRA, Table 2 and section 4.1", "points", full)]
    return [*asked, Question(mine, "LoRA, Tables 2 and 4", "points", others)] if others else asked


if __name__ == "__main__":
    figures.main(__file__)
