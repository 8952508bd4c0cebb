"""The study `toy_linear`: LoRA+'s linear model against width, by the exponent calculus and by exact training.

`python analysis/toy_linear.py`: results/toy_linear.csv -> figures/toy_linear.{png,pdf}. No gradients and no torch:
`loralab study toy_linear` measures it (theory/survey.py defines its rows).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.claims import Claim
from loralab.studies.intervals import note_outside
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
TOLERANCE = 0.02  # tolerance of an exponent
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


def within(groups: list[Any]) -> Interval:
    """Distance from 0 of the worst of several exponents, with its p against TOLERANCE; n counts the seeds.

    The worst is the exponent with the largest p of being within the tolerance, so its verdict holds for each.
    """
    found = []
    for values in groups:
        sign = 1.0 if np.mean(values) >= 0 else -1.0
        own = mean_interval(sign * values, null=TOLERANCE)
        found.append(Interval(own.estimate, max(own.low, 0.0), own.high, own.n, own.p))
    return max(found, key=lambda own: (own.estimate > TOLERANCE, -own.p if own.estimate > TOLERANCE else own.p))


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
    ax.set(xlabel="exponent of n by the calculus", ylabel="measured", title="a) the calculus is right for large n")
    ax.legend()


def _stability(ax: "Axes", frame: pd.DataFrame) -> None:
    for init, colour in zip(INITS, plotting.COLOURS, strict=False):
        for which, mark in zip(STABILITY, "os", strict=True):
            rows = of_part(frame, "stable", init=init, optimizer="sgd", rates=which)
            line = rows.groupby("log2_n")["value"].median()
            label = f"{'lr' if which == 'equal' else 'lr$_B$'}, init {init}"
            ax.plot(2.0 ** line.index.to_numpy(), line, mark + ("-" if which == "equal" else "--"), color=colour)
            note_outside(ax, line.iloc[-1], label, colour)
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


def claims(frame: pd.DataFrame) -> list[Claim]:
    made: list[Claim] = []

    def claim(
        source: str, text: str, paper: str, found: Interval, threshold: float = 0.0, *, below: bool = False
    ) -> None:
        made.append(Claim("toy_linear", source, text, paper, found, threshold, below=below))

    for where, told in WIDTHS.items():
        for init, step, paper, way in (("A", SHOWN, "-1/2", "falls with n"), ("B", 1, "1/2", "grows with n")):
            found = slopes(frame, init=init, optimizer="sgd", rates="1/sqrt(n)", range=where, step=step, quantity="f")
            text = f"linear model, {told}: with c/√n for both rates, init {init}'s f {way} (its exponent)"
            claim("LoRA+, Proposition 1", text, paper, mean_interval(found), below=init == "A")
        for optimizer, source in (("sgd", "LoRA+, Proposition 2"), ("sign", "LoRA+, Theorem 1")):
            at = {"optimizer": optimizer, "rates": "1/n and 1", "range": where}
            steps = range(SHOWN, STEPS + 1)
            settings = [(init, delta, step) for init in INITS for delta in DELTAS for step in steps]
            groups = [slopes(frame, init=init, quantity=delta, step=step, **at) for init, delta, step in settings]
            text = (
                f"linear model, {told}, {NAMES[optimizer]}: with lr_A = c/n and lr_B = c every delta stays of order 1"
            )
            claim(
                source,
                f"{text} (largest exponent in size, below {TOLERANCE})",
                "0",
                within(groups),
                TOLERANCE,
                below=True,
            )
    first, second = (stable_slopes(frame, init=init, optimizer="sgd", rates="equal") for init in INITS)
    text = "linear model: the largest stable equal rate falls more slowly with n for init A than for B (its exponent)"
    claim("Init (2406.08447)", text, "-1/2 and -1: 1/2 apart", mean_interval(first - second))
    for init in INITS:
        text = f"linear model, init {init}: the best pair's λ grows with n (its exponent)"
        claim("LoRA+, Theorem 1", text, "1", mean_interval(ratio_slopes(frame, init)))
    return made


if __name__ == "__main__":
    figures.main(__file__)
