"""The study `rate_law`: the tuned rate of every arm of every study beside that of the law, lr_A = c / sqrt(r λ s).

`python analysis/rate_law.py`: results/*.csv -> figures/rate_law.{png,pdf}. Its own CSV has the arms that no other study
has tuned; the others' are read from theirs. The law is loralab.theory.rate_law, with the constants that `optim.lr=auto`
has.
"""

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import places, plotting
from loralab.studies import captions, figures, study_module
from loralab.studies.law_fit import exponents, one_task, rms, share, without_task
from loralab.studies.questions import Claim, Question
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.tuned_rates import SETTING, tuned_arms
from loralab.theory.rate_law import c_of, lr_A, rates_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", "validation/loss", "test/loss", "seconds", "commit", "diff"]
OTHERS = (  # of two arms with one setting, the first counts
    *("ratio", "rank", "rank_ratio", "targets", "low_data", "ratio_imdb", "methods", "ratio_head"),
    *("horizon", "batch", "lr_grid", "width"),
    *("ratio_decoder", "ratio_sql", "tenfold_decoder", "targets_decoder", "rank_decoder", "forgetting"),
)
RULE = ("lora.alpha", "lora.scaling")  # two rules that give one s are one setting
WIDTHS = {"minilm": 384, "smollm2": 576, "tiny": 64} | {f"width_{n}": n for n in (64, 128, 256, 512, 1024)}

FITTED = ("trec", "rotten_tomatoes", "imdb")  # tasks that the law's constants were fitted on
FAMILIES = {"trec_fine": "trec"}  # tasks of the same texts: left out together
SAFE = 16  # the largest λ at which the law is a power of λ, r and s alike
A, B, VARIANT, BACKBONE = "init A", "init B", "variant", "another backbone"  # variant: DoRA, ..., or a head at lr_A
MARKS = {
    kind: (mark, plotting.COLOURS[at])
    for at, (kind, mark) in enumerate(zip((A, B, VARIANT, BACKBONE), "os^D", strict=True))
}
LABELS = {VARIANT: "a LoRA variant, or the head at lr$_A$"}
NAMES = captions.NAMES | {"rotten_tomatoes": "Rotten Tom.", "sms_spam": "SMS"}
PAPER_TIMES = 10.0  # of full fine-tuning's rate: Schulman et al. 2025, alpha = 32, all maps
RULES: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "alpha 32,\nall maps": (
        "alpha = 32, all maps",
        lambda arms: arms[(arms["alpha"] == 32) & (arms["targets"] == "all")],
    ),
    "alpha 8,\nq, v": (
        "alpha = r = 8, q and v",
        lambda arms: arms[(arms["alpha"] == 8) & (arms["rank"] == 8) & (arms["targets"] == "q,v")],
    ),
}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its thinned curve."""
    return tables.runs[[*KEPT, *curve_columns(tables.runs)]]


def arms_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Every tuned arm of OTHERS and of this study, one per setting, with the law's rate and what it misses.

    doublings: log2 of tuned / predicted; left_out: of plain LoRA on MiniLM, less the mean of the other tasks
    (`without_task`).
    """
    parts = [committed_arms(name) for name in OTHERS] + [tuned_arms(frame, "rate_law")]
    arms = pd.concat([part for part in parts if len(part)], ignore_index=True)
    arms = arms.rename(columns={name: name.rpartition(".")[2] for name in SETTING})
    arms = arms.assign(s=arms["s"].round(6), alpha=arms["s"] * arms["rank"])  # alpha of alpha/r, whatever the rule
    arms = arms.drop_duplicates([name.rpartition(".")[2] for name in ("s", *SETTING) if name not in RULE])
    records = [{str(key): value for key, value in arm.items()} for arm in arms.to_dict("records")]
    predicted = np.array([_predicted(arm) for arm in records])
    arms = arms.assign(
        kind=[_kind(arm) for arm in records], predicted=predicted, doublings=np.log2(arms["tuned"] / predicted)
    ).reset_index(drop=True)
    plain = arms[arms["kind"].isin([A, B])]
    return arms.assign(left_out=without_task(plain, FAMILIES))  # by index; NaN for the rest


@functools.cache
def committed_arms(study: str) -> pd.DataFrame:
    """The tuned arms of a study's committed CSV; none where there is no such file."""
    path = places.found(study_module.ANALYSIS / "results" / f"{study}.csv")
    return tuned_arms(pd.read_csv(path), study) if path.is_file() else pd.DataFrame()


def _kind(arm: dict[str, Any]) -> str:
    if arm["method"] == "full":
        return "full"
    if arm["model"] != "minilm":
        return BACKBONE
    if arm["method"] != "lora" or arm["bias"] != "none" or arm["head_lr"] != "pinned":
        return VARIANT
    return A if arm["init"] == "A" else B


def _predicted(arm: dict[str, Any]) -> float:
    """The law's rate; NaN for full fine-tuning."""
    if arm["method"] == "full":
        return np.nan
    width = WIDTHS[arm["model"]]
    c = c_of(str(arm["targets"]).split(","), rates_at(width, {}))
    law: dict[str, Any] = {"s": arm["s"], "rank": int(arm["rank"]), "ratio": arm["ratio"], "init": arm["init"]}
    return lr_A(c, width=width, steps=int(arm["steps"]), **law)


def _powers(arms: pd.DataFrame, *, whole: bool = False) -> pd.DataFrame:
    """The arms where the law is a product of powers: of plain LoRA, init A and λ up to SAFE; whole: on all examples."""
    own = arms[(arms["kind"] == A) & (arms["ratio"] <= SAFE)]
    return own[own["train_rows"].isna() & (own["steps"] == 100)] if whole else own


def times_full(arms: pd.DataFrame) -> pd.DataFrame:
    """LoRA's tuned rate over full fine-tuning's on a whole task, with the same steps and batch, for λ = 1 and init A.

    Columns: task, alpha, rank, s, targets, times, low, high (95%: of the noise between seeds), predicted.
    """
    keys = ["task", "model", "steps", "batch_size"]
    whole = arms[arms["train_rows"].isna()]
    lora = whole[(whole["kind"] == A) & (whole["ratio"] == 1)]
    pairs = lora.merge(whole[whole["kind"] == "full"], on=keys, suffixes=("", " full"))
    with np.errstate(divide="ignore"):  # an end that is not identified is 0
        down, up, full_down, full_up = (
            abs(np.log(pairs[f"{end}{arm}"] / pairs[f"tuned{arm}"])) for arm in ("", " full") for end in ("low", "high")
        )
    times = pairs["tuned"] / pairs["tuned full"]
    ends = {
        "times": times,
        "low": times / np.exp(np.hypot(down, full_up)),
        "high": times * np.exp(np.hypot(up, full_down)),
    }
    found = pairs[["task", "alpha", "rank", "s", "targets"]].assign(**ends)
    return found.assign(predicted=pairs["predicted"] / pairs["tuned full"])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    lora = arms[arms["kind"] != "full"]
    figure: Figure
    axes: dict[str, Axes]
    panels: Any = [["all", "rank", "targets"], ["all", "ratio", "task"], ["all", "s", "full"]]
    figure, axes = plt.subplot_mosaic(
        panels, figsize=(plotting.DOUBLE, 5.2), width_ratios=[1.4, 1, 0.8], height_ratios=[1.4, 1, 0.9]
    )
    _scatter(axes["all"], lora)
    axes["all"].set_title(r"a) law: lr$_A$ = c / $\sqrt{r λ s}$")
    for letter, key, name in (("b", "rank", "rank r"), ("c", "ratio", "ratio λ"), ("d", "s", "s = alpha / r")):
        _against(axes[key], lora, key)
        axes[key].set_title(f"{letter}) {name}")
    for letter, key, name in (("e", "targets", "targets"), ("f", "task", "task left out"), ("g", "full", "at λ = 1")):
        axes[key].set_title(f"{letter}) {name}")
    axes["ratio"].set_ylabel("log$_2$ of tuned / law")
    _by_name(axes["targets"], lora[lora["kind"] == A], "targets", "doublings")
    _by_name(axes["task"], lora, "task", "left_out")
    axes["task"].set_xlabel("log$_2$ of tuned / law", labelpad=1)
    _times(axes["full"], times_full(arms))
    labels: Any = [axes[key].get_legend_handles_labels() for key in ("all", "rank", "full")]
    handles, texts = (list(itertools.chain(*each)) for each in zip(*labels, strict=True))
    figure.legend(handles, texts, loc="outside upper left", ncols=3)
    return figure


def _scatter(ax: "Axes", arms: pd.DataFrame) -> None:
    ends = np.array([arms[["tuned", "predicted"]].min().min() / 1.5, arms[["tuned", "predicted"]].max().max() * 1.5])
    ax.fill_between(ends, ends / 2, ends * 2, color="0.9", lw=0, label="within 2x")
    ax.plot(ends, ends, color="0.5", lw=0.8)
    for kind, (mark, colour) in MARKS.items():
        own = arms[arms["kind"] == kind]
        new = ~own["task"].isin(FITTED)
        for rows, face in ((own[~new], colour), (own[new], "white")):
            ax.plot(rows["predicted"], rows["tuned"], mark, color=colour, mfc=face, ms=3.5, mew=0.8)
        ax.plot([], [], mark, color=colour, ms=3.5, label=LABELS.get(kind, kind))
    ax.plot([], [], "o", color="k", mfc="white", ms=3.5, mew=0.8, label="a task not fitted on")
    ax.set(xscale="log", yscale="log", xlabel="the law's rate lr$_A$", ylabel="tuned rate lr$_A$")
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    found = share(arms.loc[arms["kind"].isin([A, B]), "left_out"])
    text = f"c of the other tasks:\n{found.estimate:.0%} of {found.n} arms of\ninit A and B within 2x"
    ax.text(0.04, 0.98, text, transform=ax.transAxes, va="top")


def _against(ax: "Axes", arms: pd.DataFrame, key: str) -> None:
    """Doublings against a number on a logarithmic axis; the line is the mean of init A, where two arms or more are."""
    ax.axhspan(-1, 1, color="0.9", lw=0)
    ax.axhline(0, color="0.5", lw=0.8)
    for at, (kind, (mark, colour)) in enumerate(MARKS.items()):
        own = arms[arms["kind"] == kind]
        ax.plot(own[key] * 2 ** (0.12 * at - 0.18), own["doublings"], mark, color=colour, ms=2.5, alpha=0.6, mew=0)
    means = arms[arms["kind"] == A].groupby(key)["doublings"].agg(["mean", "size"])
    means = means[means["size"] > 1]
    ax.plot(means.index, means["mean"], color=MARKS[A][1], lw=1, label="b to d: mean of init A")
    ax.set_xscale("log", base=2)
    ax.set_ylim(-1.7, 1.7)
    ax.set_yticks([-1, 0, 1])
    values = arms.loc[arms["kind"].isin([A, B]), key]
    ticks = [4.0**n for n in range(-5, 6) if values.min() <= 4.0**n <= values.max()]
    plotting.label_powers(ax.xaxis, ticks)


def _by_name(ax: "Axes", arms: pd.DataFrame, key: str, value: str) -> None:
    """Doublings by a name, the most frequent on top."""
    ax.axvspan(-1, 1, color="0.9", lw=0)
    ax.axvline(0, color="0.5", lw=0.8)
    names = list(arms[arms[value].notna()][key].value_counts().index)[::-1]
    for place, name in enumerate(names):
        own = arms[arms[key] == name]
        for kind, (mark, colour) in MARKS.items():
            values = own.loc[own["kind"] == kind, value]
            spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(len(values))
            ax.plot(values, place + spread, mark, color=colour, ms=2.5, alpha=0.6, mew=0)
    ax.set_yticks(range(len(names)), [NAMES.get(name, name.replace(",", ", ")) for name in names])
    ax.set_xlim(-1.7, 1.7)
    ax.set_xticks([-1, 0, 1])


def _times(ax: "Axes", found: pd.DataFrame) -> None:
    """LoRA's tuned rate over full fine-tuning's, in the settings of `RULES`, with what the law gives."""
    for place, (_, chosen) in enumerate(RULES.values()):
        own = chosen(found)
        ax.plot(own["times"], np.full(len(own), place), "o", color=MARKS[A][1], ms=3.5)
        ax.plot(own["predicted"], np.full(len(own), place), "|", color="k", ms=8)
    ax.plot([], [], "|", color="k", ms=8, label="g: by the law")
    ax.axvline(PAPER_TIMES, color=plotting.COLOURS[1], lw=0.8, ls="--", label="g: 10 times (Schulman et al.)")
    ax.set_xscale("log")
    ax.set_ylim(-0.6, len(RULES) - 0.4)
    ax.set_yticks(range(len(RULES)), list(RULES))
    plotting.label_powers(ax.xaxis, [5, 10, 20, 50])
    ax.set_xlim(4, max(100, 1.5 * found["times"].max()))
    ax.set_xlabel("LoRA's rate / full's", labelpad=1)


def caption(frame: pd.DataFrame) -> str:
    arms = arms_of(frame)
    lora = arms[arms["kind"] != "full"]
    a = lora[lora["kind"] == A]
    task = a["task"].mode().iloc[0]
    most = a[a["task"] == task]
    return (
        f"a to e: {len(lora)} tuned arms of {arms['study'].nunique()} studies; {len(most)} of the {len(a)} of init A "
        f"are {NAMES.get(task, task)}'s, on average at {2 ** most['doublings'].mean():.2f} times the law, which lifts "
        "the means. f, text in a: c fitted on the other tasks (plain LoRA on MiniLM; targets that another task has). "
        f"This study's own: {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """By group of arms: how many, the RMS in doublings, the mean, and the share within a factor of 2 of the law."""
    arms = arms_of(frame)
    lora = arms[arms["kind"] != "full"]
    plain = lora[lora["kind"].isin([A, B])]
    inits = [(str(kind), own["doublings"]) for kind, own in lora.groupby("kind", sort=False)]
    new = lora[~lora["task"].isin(FITTED)]
    groups = [*inits, ("tasks not fitted on", new["doublings"]), ("each task left out", plain["left_out"])]
    groups += [
        (f"fitted on {FITTED[0]} alone, free exponents", one_task(_powers(arms, whole=True), FITTED[0], FAMILIES))
    ]
    groups += [(f"task {task} left out", own["left_out"]) for task, own in plain.groupby("task")]
    a = plain[plain["kind"] == A]
    for key, name in (
        ("rank", "rank"),
        ("ratio", "λ"),
        ("alpha", "alpha"),
        ("s", "s"),
        ("targets", "targets"),
        ("steps", "steps"),
    ):
        groups += [(f"init A, {name} = {_short(value)}", own["doublings"]) for value, own in a.groupby(key)]
    groups += [
        (f"init B, λ = {_short(ratio)}", of["doublings"]) for ratio, of in plain[plain["kind"] == B].groupby("ratio")
    ]
    rows = []
    for name, doublings in groups:
        if doublings.notna().any():
            inside = f"{share(doublings).estimate:.0%}"
            size = {"arms": int(doublings.notna().sum()), "RMS, doublings": round(rms(doublings), 2)}
            rows.append({"group": name, **size, "mean": round(float(doublings.mean()), 2), "within 2x": inside})
    return pd.DataFrame(rows)


def _short(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def questions(frame: pd.DataFrame) -> list[Question]:
    arms = arms_of(frame)
    plain = arms[arms["kind"].isin([A, B])]
    new = plain[~plain["task"].isin(FITTED)]
    none, shares = "in no paper", {"c fitted on the other tasks": plain["left_out"]}
    if len(new):
        shares["tasks that nothing was fitted on"] = new["doublings"]
    near = [Claim(where, share(doublings), "none", 0.9, exact=True) for where, doublings in shares.items()]
    names = {"r": "the rank at fixed s", "λ": "λ", "s": "s"}
    powers = [
        Claim(names[key], slope, "-1/2 in the law", -0.5, exact=True) for key, slope in exponents(_powers(arms)).items()
    ]
    text = f"as which power does the tuned lr_A fall (init A, λ up to {SAFE})?"
    return [
        Question("in which share of arms is the law's rate within a factor of 2 of the tuned one?", none, "", near),
        Question(text, none, "", powers),
    ]


if __name__ == "__main__":
    figures.main(__file__)
