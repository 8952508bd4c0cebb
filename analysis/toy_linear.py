"""The study `toy_linear`: LoRA+'s linear model against width, by the exponent calculus and by exact training.

`python analysis/toy_linear.py`: results/toy_linear.csv -> figures/toy_linear.{png,pdf}. No gradients and no torch:
`loralab study toy_linear` measures it (theory/survey.py defines its rows).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.intervals import note_outside
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, mean_interval
from loralab.theory import survey
from loralab.theory.gamma import RATES, exponents
from loralab.theory.linear import fitted
from loralab.theory.survey import INITS, OPTIMIZERS, PLANE_STEPS, SHOWN, STABLE, STABLE_STEPS, STEPS, C

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = [*survey.KEYS]
KEPT = [*KEYS, "predicted", "value", "commit", "diff"]
START = 0.5  # loss before training, y^2 / 2
LEARNED = START / 10
DELTAS = ("delta1", "delta2", "delta3")
NAMES = {"sgd": "SGD", "sign": "sign-Adam"}
STABILITY = {"equal": "lr_A = lr_B", "lr_B": "lr_B, lr_A = c/n"}
TITLES = {"1/n and 1": "c/n and c", "1/sqrt(n)": "c/√n", "1/n": "c/n"}
WIDTHS = {"large": "n = 2^40 to 2^60", "small": "n = 2^5 to 2^14"}


def wanted(smoke: bool) -> pd.DataFrame:
    return pd.DataFrame(survey.wanted(survey.SMOKE if smoke else survey.FULL), columns=KEYS)


def measure(smoke: bool) -> pd.DataFrame:
    return pd.DataFrame(survey.measured(survey.SMOKE if smoke else survey.FULL), columns=KEPT[:-2])


def of_part(frame: pd.DataFrame, part: str, **where: Any) -> pd.DataFrame:
    found = frame[frame["part"] == part]
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def slopes(frame: pd.DataFrame, **where: Any) -> Any:
    """Each seed's exponent, in the order of the seeds."""
    return of_part(frame, "exponent", **where).sort_values("seed")["value"].to_numpy(dtype=float)


def stable_slopes(frame: pd.DataFrame, **where: Any) -> Any:
    """Each seed's slope of the largest stable rate against n, on log axes."""
    seeds = of_part(frame, "stable", **where).sort_values(["seed", "log2_n"]).groupby("seed")
    return np.array([fitted(rows["log2_n"].tolist(), rows["value"]) for _, rows in seeds])


def ratio_slopes(frame: pd.DataFrame, init: str) -> Any:
    """Each seed's slope of the best pair's ratio against n, on log axes."""
    seeds = of_part(frame, "best", init=init).sort_values(["seed", "log2_n"]).groupby("seed")
    return np.array([fitted(rows["log2_n"].tolist(), rows["value"]) for _, rows in seeds])


def farthest(groups: list[Any]) -> Interval:
    """Of several exponents the one farthest from 0; n counts the seeds."""
    return mean_interval(max(groups, key=lambda values: abs(np.mean(values))))


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(plotting.DOUBLE, 5))
    _agreement(axes[0][0], frame)
    _stability(axes[0][1], frame)
    plane = of_part(frame, "plane", init="A")
    _plane(axes[1][0], plane)
    _over_ratio(axes[1][1], plane)
    return figure


def _agreement(ax: "Axes", frame: pd.DataFrame) -> None:
    """Each exponent, averaged over the seeds, against the calculus."""
    rows = of_part(frame, "exponent")
    rows = rows[np.isfinite(rows["predicted"]) & np.isfinite(rows["value"])]
    keys = ["init", "optimizer", "rates", "quantity", "step", "predicted"]
    for where, colour, mark in (("small", plotting.COLOURS[1], "x"), ("large", plotting.COLOURS[0], "o")):
        found = rows[rows["range"] == where].groupby(keys)["value"].mean().reset_index()
        label = {"small": "$2^5$ to $2^{14}$", "large": "$2^{40}$ to $2^{60}$"}[where]
        ax.plot(found["predicted"], found["value"], mark, color=colour, label=f"n = {label}", mfc="none")
    ax.axline((0, 0), slope=1, color="0.5", lw=0.8, zorder=0)
    ax.set(
        xlabel="exponent of n, predicted",
        ylabel="exponent of n, measured",
        title="a) the calculus is right for large n",
    )
    ax.legend()


def _stability(ax: "Axes", frame: pd.DataFrame) -> None:
    for init, colour in zip(INITS, plotting.COLOURS, strict=False):
        for which, mark in zip(STABILITY, "os", strict=True):
            rows = of_part(frame, "stable", init=init, optimizer="sgd", rates=which)
            line = rows.groupby("log2_n")["value"].median()
            label = f"{'lr$_A$ = lr$_B$' if which == 'equal' else 'lr$_B$'}, init {init}"
            ax.plot(2.0 ** line.index.to_numpy(), line, mark + ("-" if which == "equal" else "--"), color=colour)
            apart = 1.0 if which == "equal" else {"A": 0.7, "B": 1.4}[init]  # the upper two lines end side by side
            note_outside(ax, line.iloc[-1] * apart, label, colour)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set(xlabel="n", ylabel="largest stable rate", title="b) lr$_B$ need not fall with n; lr$_A$ = lr$_B$ must")


def by_width(rows: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    return [(2 ** int(n), rows[rows["log2_n"] == n]) for n in sorted(rows["log2_n"].unique())]


def _plane(ax: "Axes", rows: pd.DataFrame) -> None:
    """The region where the loss falls to a tenth, for each width; dots: within 10% of the width's lowest loss."""
    for (n, own), colour in zip(by_width(rows), plotting.COLOURS[2:], strict=False):
        loss = own.pivot_table(index="lr_B", columns="lr_A", values="value").to_numpy()
        x, y = (np.sort(own[name].unique()) for name in ("lr_A", "lr_B"))
        if (loss <= LEARNED).any():
            ax.contourf(x, y, loss <= LEARNED, levels=[0.5, 1.5], colors=[colour], alpha=0.3)
        near = own[near_best(own)]
        ax.plot(near["lr_A"], near["lr_B"], "o", color=colour, label=f"n = {n}, best")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ends = [rows["lr_A"].min(), rows["lr_A"].max()]
    ax.plot(ends, ends, color="0.4", lw=0.8, ls="--", label="λ = 1")
    ax.set_xlim(*ends)
    ax.set_ylim(rows["lr_B"].min(), rows["lr_B"].max())
    ax.set(xlabel="lr$_A$", ylabel="lr$_B$", title="c) where it learns moves left with n")
    ax.legend(loc="upper right")


def near_best(rows: pd.DataFrame) -> Any:
    """Whether a pair's mean loss is within 10% of the lowest loss."""
    return rows["value"] <= 1.1 * rows["value"].min()


def over_ratio(rows: pd.DataFrame) -> "pd.Series[float]":
    """The lowest mean loss among the pairs of each octave of ratios, by log2 of λ / n."""
    ratio = np.floor(np.log2(rows["lr_B"] / rows["lr_A"]).round(6)) - rows["log2_n"]
    return rows["value"].groupby(ratio).min()


def _over_ratio(ax: "Axes", rows: pd.DataFrame) -> None:
    for (n, own), colour in zip(by_width(rows), plotting.COLOURS[2:], strict=False):
        line = over_ratio(own)
        line = line[line < START]  # the others, at the corner of the plane, diverged
        ax.plot(2.0 ** line.index.to_numpy(), line, color=colour, label=f"n = {n}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set(xlabel="λ / n", ylabel="lowest loss over lr$_A$", title="d) against λ / n, both widths agree")
    ax.legend()


def caption(frame: pd.DataFrame) -> str:
    return (
        f"LoRA+'s linear model, y = 1, c = {C:g}. a: SGD and sign-Adam, both inits, all rates, steps 1 to 3. b: the "
        f"loss has not risen after {STABLE_STEPS} steps; dashed: with lr_A = c/n. c, d: init A after {PLANE_STEPS} "
        f"steps; shaded: the loss falls to a tenth. {of_part(frame, 'exponent')['seed'].nunique()} batches, "
        f"{captions.code(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Exponents at the shown step and of the largest stable rate: predicted and found; means over seeds."""
    rows: list[dict[str, Any]] = []
    stable = of_part(frame, "stable")["log2_n"]
    span = f"n = 2^{stable.min():.0f} to 2^{stable.max():.0f}"
    for init in INITS:
        for optimizer in OPTIMIZERS:
            own = {"init": init, "optimizer": NAMES[optimizer]}
            where: dict[str, Any] = {"init": init, "optimizer": optimizer}
            for rates in RATES:
                for quantity, gamma in exponents(init, optimizer, RATES[rates], STEPS)[SHOWN - 1].items():
                    found = {"rates": TITLES[rates], "exponent of": f"{quantity}, step {SHOWN}", "calculus": gamma}
                    at = where | {"rates": rates, "quantity": quantity, "step": SHOWN}
                    rows.append(own | found | {WIDTHS[r]: slopes(frame, range=r, **at).mean() for r in WIDTHS})
            for which, gamma in STABLE[init].items():
                found = {"rates": STABILITY[which], "exponent of": "largest stable rate", "calculus": gamma}
                rows.append(own | found | {span: stable_slopes(frame, rates=which, **where).mean()})
    return pd.DataFrame(rows).round(3)


def questions(frame: pd.DataFrame) -> list[Question]:
    """Exponents of n, at widths that models have; the asymptotic range is a check of the code (tests)."""
    at, told = {"range": "small"}, WIDTHS["small"]
    best = [Claim(f"init {init}", mean_interval(ratio_slopes(frame, init)), "1", 1.0, exact=True) for init in INITS]
    equal = [
        Claim(
            f"init {init}",
            mean_interval(slopes(frame, init=init, step=step, quantity="f", optimizer="sgd", rates="1/sqrt(n)", **at)),
            paper,
            number,
            exact=True,
        )
        for init, step, paper, number in (("A", SHOWN, "-1/2", -0.5), ("B", 1, "1/2", 0.5))
    ]
    both = []
    for optimizer in ("sgd", "sign"):
        groups = [
            slopes(frame, init=init, quantity=delta, step=step, optimizer=optimizer, rates="1/n and 1", **at)
            for init in INITS
            for delta in DELTAS
            for step in range(SHOWN, STEPS + 1)
        ]
        both.append(Claim(f"{NAMES[optimizer]}, the exponent farthest from 0", farthest(groups), "0", 0.0, exact=True))
    first, second = (stable_slopes(frame, init=init, optimizer="sgd", rates="equal") for init in INITS)
    stable = [Claim("init A less init B", mean_interval(first - second), "-1/2 and -1", 0.5, exact=True)]
    model = f"linear model, {told}"
    return [
        Question("as which power of n does the best pair's λ grow (linear model)?", "LoRA+, Theorem 1", "", best),
        Question(f"how does f depend on n with c/√n for both rates ({model})?", "LoRA+, Proposition 1", "", equal),
        Question(
            f"is every delta of order 1 with lr_A = c/n and lr_B = c ({model})?", "LoRA+, Proposition 2", "", both
        ),
        Question("how does the largest stable equal rate fall with n (linear model)?", "Init (2406.08447)", "", stable),
    ]


if __name__ == "__main__":
    figures.main(__file__)
