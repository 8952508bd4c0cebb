"""The study `forgetting`: what a language model loses in English while it learns SQL, by LoRA or by full fine-tuning.

`python analysis/forgetting.py`: results/forgetting.csv -> figures/forgetting.{png,pdf} (Biderman et al. 2024)
"""

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import confirm_runs, interior, level, paired_difference, select_columns, shared
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import whole_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

ACCURACY = "test/execution_accuracy"
SCORES = ["validation/loss", "validation/execution_accuracy", "test/loss", ACCURACY, "train/loss"]
AXES = ["seed", "task", "method", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
BEFORE, AFTER, FORGOTTEN = "prose before", "prose", "forgotten"
KEPT = ["hash", "stage", *AXES, "status", *SCORES, BEFORE, AFTER, "seconds", "commit", "diff"]
TEXTS, TOKENS = 50, 64  # of prose: reviews, and the tokens of each
FULL = "full fine-tuning"
MORE, LOSS = "increase of English loss", "nats a token"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; prose: -log p per token of held-out English under its model, before: under its backbone."""
    from loralab.inspect.held_out import backbone_of, prose, text_losses
    from loralab.runs.load import load_run
    from loralab.store.run_directory import RunDirectory

    texts, before, after = prose(TEXTS), np.nan, []
    for run, status in zip(tables.runs["run"], tables.runs["status"], strict=True):
        gc.collect()  # a model has cycles: without, those of full fine-tuning, 540 MB each, stay until memory is full
        folder, found = tables.store / "runs" / run, np.nan
        if status == "success":
            if np.isnan(before):
                before = _mean(*text_losses(*backbone_of(RunDirectory(folder)), texts, tokens=TOKENS))
            found = _mean(*text_losses(*load_run(folder), texts, tokens=TOKENS))
        after.append(found)
    english: dict[str, Any] = {BEFORE: before, AFTER: after}
    return select_columns(tables._replace(runs=tables.runs.assign(**english)), KEPT)


def _mean(sums: Any, numbers: Any) -> float:
    return float(sums.sum() / numbers.sum())


def named(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of `r = 8`, `r = 8, λ = 4`, `r = 8, all maps`, ..., FULL, with what each forgot in nats a token."""
    frame = frame.assign(**{FORGOTTEN: frame[AFTER] - frame[BEFORE]})
    lora, found = frame[frame["method"] != "full"], {}
    for (wide, ratio, rank), own in lora.groupby([lora["lora.targets"] == "all", "lora.ratio", "lora.rank"]):
        maps = ", all maps" if wide else ""
        found[f"r = {rank:g}" + (f", λ = {ratio:g}" if ratio != 1 else "") + maps] = own
    full = frame[frame["method"] == "full"]
    return found | ({FULL: full} if len(full) else {})


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.7), width_ratios=(1.3, 1))
    for own, colour in zip(named(frame).values(), plotting.COLOURS, strict=False):
        _trade(left, own, colour)
    left.plot([], [], "o", color="0.4", mfc="white", ms=3, label="a rate tried, one seed")
    left.plot([], [], "o", color="0.4", ms=6, label="the best rate, fresh seeds")
    left.set(xlabel=f"test loss of SQL, {LOSS}", ylabel=f"{MORE},\n{LOSS}", xscale="log", yscale="log")
    plotting.label_powers(left.xaxis, [0.02, 0.05, 0.1, 0.2, 0.5])
    plotting.label_powers(left.yaxis, [0.1, 0.2, 0.5, 1, 2, 5])
    left.set_title("a) learned and forgotten", loc="left")
    left.legend()
    _levels(right, named(frame))
    right.set_title("b) forgotten at the best rate", loc="left")
    return figure


def _trade(ax: "Axes", own: pd.DataFrame, colour: str) -> None:
    """A ring for each of an arm's rates; a disc for the mean of its fresh seeds, with both intervals."""
    grid, fresh = own[own["stage"] == "grid"], confirm_runs(own)
    ax.plot(grid["test/loss"], grid[FORGOTTEN], "o", color=colour, mfc="white", ms=3, zorder=1)
    x, y = level(fresh, "test/loss"), level(fresh, FORGOTTEN)
    ends = [np.nan_to_num([[at.estimate - at.low], [at.high - at.estimate]]) for at in (x, y)]
    ax.errorbar([x.estimate], [y.estimate], yerr=ends[1], xerr=ends[0], fmt="o", color=colour, ms=6, elinewidth=0.9)


def _levels(ax: "Axes", arms: dict[str, pd.DataFrame]) -> None:
    """The mean over the fresh seeds of each arm, with its interval."""
    for place, (own, colour) in enumerate(zip(arms.values(), plotting.COLOURS, strict=False)):
        found = level(own, FORGOTTEN)
        ends = [[found.estimate - found.low], [found.high - found.estimate]]
        ax.errorbar([found.estimate], [place], xerr=np.nan_to_num(np.clip(ends, 0, None)), fmt="o", color=colour)
    ax.axvline(0, color="0.6", lw=0.6, ls=":")
    ax.set_yticks(range(len(arms)), list(arms))
    ax.invert_yaxis()
    ax.set_xlabel(f"{MORE}, {LOSS}")


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    return (
        f"{shared(frame)}; LoRA on q and v, alpha = {frame['lora.alpha'].iloc[0]:g}, λ = 1 unless said. English: "
        f"{TEXTS} reviews of IMDb, {TOKENS} tokens each, perplexity {np.exp(frame[BEFORE].iloc[0]):.1f} before. a) "
        f"colours as in b; open dots: rates tried ({captions.seeds(grid)}); filled: the best on fresh seeds (n = "
        f"{confirm['seed'].nunique()}); bars: 95% over seeds (Student t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its rate, what it learned on fresh seeds, and the perplexity of English before and after."""
    rows = []
    for name, own in named(frame).items():
        fresh, gained = confirm_runs(own), level(own, FORGOTTEN)
        rows.append(
            {
                "arm": name,
                "lr": fresh["optim.lr"].iloc[0],
                "execution accuracy": round(whole_mean(fresh[ACCURACY]), 4),
                "test loss": round(whole_mean(fresh["test/loss"]), 4),
                "perplexity before": round(float(np.exp(fresh[BEFORE].iloc[0])), 2),
                "perplexity": round(float(np.exp(whole_mean(fresh[AFTER]))), 2),
                "nats gained": f"{gained.estimate:.3f} [{gained.low:.3f}, {gained.high:.3f}]",
                "interior": interior(own),
            }
        )
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([own.assign(arm=name) for name, own in named(frame).items()]).loc[frame.index, ["arm"]]


def questions(frame: pd.DataFrame) -> list[Question]:
    arms, where = named(frame), f"({captions.tasks(frame)}, nats a token, lr tuned for each)"
    theirs = (
        (FULL, "r = 8", FORGOTTEN, "full fine-tuning forgets more than r = 8"),
        ("r = 8", FULL, "test/loss", "r = 8 learns less: its test loss is above full fine-tuning's"),
        (FULL, "r = 8, all maps", FORGOTTEN, "full fine-tuning forgets more than r = 8 on all maps"),
        ("r = 64", "r = 8", FORGOTTEN, "r = 64 forgets more than r = 8"),
    )
    ours = (("r = 8, λ = 16", "r = 8", FORGOTTEN, "λ = 16 forgets more than λ = 1 (r = 8)"),)
    asked = (
        (f"does LoRA forget less, and learn less {where}?", "Biderman et al. 2024", theirs),
        (f"does a higher λ forget more {where}?", "in no paper", ours),
    )
    made = []
    for text, source, pairs in asked:
        there = [pair for pair in pairs if {*pair[:2]} <= arms.keys()]
        claims = [Claim(arm, paired_difference(arms[own], arms[base], column)) for own, base, column, arm in there]
        made += [Question(text, source, "nats", claims)] if claims else []
    return made


if __name__ == "__main__":
    figures.main(__file__)
