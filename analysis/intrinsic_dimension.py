"""The study `intrinsic_dimension`: accuracy against the dimension d of a random subspace, and d90.

`python analysis/intrinsic_dimension.py`: results/intrinsic_dimension.csv -> figures/intrinsic_dimension.{png,pdf}
(Aghajanyan et al. 2020)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import confirm_runs, interior, level, record_values, select_columns, shared, split_arms
from loralab.studies.intervals import dots, note_outside
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "method", "intrinsic.dim", "intrinsic.projection", "optim.head_lr", "optim.lr"]
AXES += ["task.eval_rows", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "parameters", "seconds", "commit", "diff"]
METRIC = "test/accuracy"
SHARE = 0.9  # share of full fine-tuning's metric: d90
FEW = 3_000

Arms = dict[float, pd.DataFrame]  # by dimension


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; parameters: trained parameters, without the head's."""
    trainable, head = (np.array(record_values(tables, "parameters", name)) for name in ("trainable", "head"))
    return select_columns(tables._replace(runs=tables.runs.assign(parameters=trainable - head)), KEPT)


def subspaces(frame: pd.DataFrame) -> Arms:
    return split_arms(frame[frame["method"] == "intrinsic"].sort_values("intrinsic.dim"), ["intrinsic.dim"])


def of(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """The arm of a reference: the head alone, or full fine-tuning."""
    return frame[frame["method"] == method]


def smallest(dims: Sequence[float], scores: Sequence[float], target: float) -> float:
    """The smallest d at which the scores, interpolated in log d, reach the target; inf if none does.

    The first of `dims` if its score is at the target already; then d is at most that. A nan (diverged) counts as below.
    """
    for at, (d, score) in enumerate(zip(dims, scores, strict=True)):
        if score >= target:
            before = scores[at - 1] if at else np.nan
            if np.isnan(before):
                return d
            return float(d * (dims[at - 1] / d) ** ((score - target) / (score - before)))
    return np.inf


def by_seed(frame: pd.DataFrame, share: float = SHARE, *, of_gain: bool = False) -> list[float]:
    """d of each fresh seed: where its accuracies reach that share of its full fine-tuning's.

    of_gain: the share is of full fine-tuning's gain over the head alone.
    """
    arms = subspaces(frame)
    scores = pd.DataFrame({d: confirm_runs(own).set_index("seed")[METRIC] for d, own in arms.items()})
    top, floor = (confirm_runs(of(frame, method)).set_index("seed")[METRIC] for method in ("full", "head"))
    targets = floor + share * (top - floor) if of_gain else share * top
    return [smallest(list(arms), scores.loc[seed].tolist(), targets[seed]) for seed in scores.index]


def of_means(frame: pd.DataFrame, share: float = SHARE) -> float:
    """d of the means over the fresh seeds."""
    arms = subspaces(frame)
    means = [level(own, METRIC).estimate for own in arms.values()]
    return smallest(list(arms), means, share * level(of(frame, "full"), METRIC).estimate)


def interval(found: Sequence[float] | NDArray[np.float64]) -> Interval:
    """The geometric mean over the seeds, by Student t over logarithms; NaN if a seed never reaches the target."""
    if not np.isfinite(found).all():
        return Interval(np.nan, np.nan, np.nan, np.size(found), np.nan)
    return ratio_interval(found, np.ones_like(found))


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = subspaces(frame)
    figure, ax = plt.subplots(figsize=(0.8 * plotting.DOUBLE, 2.8))
    full, head = (level(of(frame, method), METRIC) for method in ("full", "head"))
    for scores, label, colour in (
        (full, "full fine-tuning", plotting.COLOURS[1]),
        (head, "head alone", plotting.COLOURS[3]),
    ):
        ax.axhspan(scores.low, scores.high, color=colour, alpha=0.2, lw=0)
        ax.axhline(scores.estimate, color=colour, lw=0.8)
        note_outside(ax, scores.estimate, label, colour)
    ax.axhline(SHARE * full.estimate, color=plotting.COLOURS[1], lw=0.8, ls="--")
    note_outside(ax, SHARE * full.estimate, f"{SHARE:.0%} of it", plotting.COLOURS[1])
    found, at = interval(by_seed(frame)), of_means(frame)
    if np.isfinite(at):
        ends = [found.low, found.high] if np.isfinite(found.low) else [at, at]
        ax.plot(ends, [SHARE * full.estimate] * 2, color="black", lw=2.5, solid_capstyle="butt")
        ax.annotate(f"d90 = {at:,.0f}", (at, SHARE * full.estimate), (0, -14), textcoords="offset points", ha="center")
    dots(ax, list(arms), [level(own, METRIC) for own in arms.values()], plotting.COLOURS[0], join="-")
    ax.set(xscale="log", xlabel="dimension d of the random subspace", ylabel="test accuracy")
    ax.set_title(captions.tasks(frame))
    return figure


def _rate(own: pd.DataFrame) -> float:
    return float(confirm_runs(own)["optim.lr"].iloc[0])


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby(["method", "intrinsic.dim"], dropna=False).size().unique()))
    gains = _text(frame, by_seed(frame, of_gain=True))
    return (
        f"{shared(frame)}; {' or '.join(frame['intrinsic.projection'].unique())} over all weights; the head is trained "
        f"in all. The best of {trials} runs, on {confirm['seed'].nunique()} fresh seeds, 95% (Student t). d90 (black) "
        f"interpolates; of the gain over the head alone: {gains}. {captions.provenance(frame)}."
    )


def _number(frame: pd.DataFrame, d: float) -> str:
    least = min(subspaces(frame))
    return "not reached" if np.isinf(d) else f"at most {least:g}" if d < 1.001 * least else f"{d:,.0f}"


def _text(frame: pd.DataFrame, own: Sequence[float]) -> str:
    found = interval(own)
    if np.isnan(found.low):
        return " or ".join(dict.fromkeys(_number(frame, d) for d in sorted(own)))
    return f"{_number(frame, found.estimate)} [{found.low:,.0f}, {found.high:,.0f}]"


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its selected rate, its accuracy on fresh seeds, and its share of full fine-tuning's."""
    full, head = (level(of(frame, method), METRIC).estimate for method in ("full", "head"))
    arms = {f"d = {d:g}": own for d, own in subspaces(frame).items()}
    rows = []
    for name, own in {"head alone": of(frame, "head"), **arms, "full fine-tuning": of(frame, "full")}.items():
        found = level(own, METRIC)
        rows.append(
            {
                "arm": name,
                "lr": _rate(own),
                "test accuracy": f"{found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}]",
                "of full": f"{found.estimate / full:.1%}",
                "of full's gain over the head": f"{(found.estimate - head) / (full - head):.1%}",
                "interior": interior(own),
            }
        )
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    weights = float(of(frame, "full")["parameters"].iloc[0])
    own = np.array(by_seed(frame))
    claims = [
        Claim("dimensions, over the paper's 200", interval(own / 200), "200 (a RoBERTa, MRPC)", 1.0, exact=True),
        Claim("dimensions, over the backbone's weights", interval(own / weights), "orders of magnitude", 0.1),
    ]
    text = f"how many dimensions reach {SHARE:.0%} of full fine-tuning's accuracy ({captions.tasks(frame)})?"
    return [Question(text, "Aghajanyan et al. 2020, abstract", "x", claims)]


if __name__ == "__main__":
    figures.main(__file__)
