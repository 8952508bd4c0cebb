"""The study `latency`: the time that each method adds to a forward pass, by batch and length.

`python analysis/latency.py`: results/latency.csv -> figures/latency.{png,pdf}. `loralab study latency` measures it.
"""

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, timing
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from loralab.backbones.load import Backbone

KEYS = ["batch", "length", "arm", "repeat"]
KEPT = [*KEYS, "cpu", "wall", "trained", "commit", "diff"]
ARMS = ("plain", "again", "merged", "unmerged", "houlsby", "pfeiffer", "prefix")
NAMES = {
    "again": "plain, once more",
    "merged": "LoRA, merged",
    "unmerged": "LoRA, unmerged",
    "houlsby": "Houlsby",
    "pfeiffer": "Pfeiffer",
    "prefix": "prefix",
}
PAPER = {
    "houlsby": ("+30.3%", 1.303),
    "pfeiffer": ("+20.7% (Adapter-L)", 1.207),
}  # GPT-2 medium on a GPU, batch 1, length 128: Adapter-H and -L
NEAR = 1.02  # ratios to the plain backbone's time up to this count as no latency
RANK, BOTTLENECK, TOKENS = 8, 64, 20
MOST_PASSES = 8


class Size(NamedTuple):
    """The measurement's size: backbone, batches x lengths, repeats."""

    model: Literal["minilm", "tiny"]
    cells: tuple[tuple[int, int], ...]
    repeats: int


FULL = Size("minilm", ((1, 16), (1, 64), (1, 128), (4, 64), (16, 32), (16, 128)), 60)
SMOKE = Size("tiny", ((1, 8), (4, 16)), 5)


def wanted(smoke: bool) -> pd.DataFrame:
    size = SMOKE if smoke else FULL
    cells = [(*cell, arm, repeat) for cell in size.cells for arm in ARMS for repeat in range(size.repeats)]
    return pd.DataFrame(cells, columns=KEYS)


def measure(smoke: bool) -> pd.DataFrame:
    """Seconds of a forward pass, each the lowest of a few consecutive passes: more of them for small batches."""
    import torch

    size, rows = SMOKE if smoke else FULL, []
    models = arms(timing.backbone(size.model))
    with timing.one_thread(), torch.inference_mode():
        for batch, length in size.cells:
            passes = min(MOST_PASSES, max(1, 512 // (batch * length)))
            forward = {arm: partial(_forward, model, example(batch, length)) for arm, model in models.items()}
            for arm, row in timing.in_turn(forward, repeats=size.repeats, passes=passes):
                rows.append(row | {"batch": batch, "length": length, "arm": arm, "trained": trained(models[arm])})
    return pd.DataFrame(rows, columns=KEPT[:-2])


def _forward(model: "nn.Module", inputs: "dict[str, Tensor]", _repeat: int) -> None:
    model(**inputs)


def arms(found: "Backbone") -> "dict[str, nn.Module]":
    """One model per arm. They share the frozen weights, so that the weights' place in memory favours no arm."""
    import torch

    from loralab.methods import bottleneck, lora, prompts
    from loralab.serving.adapters import adapter_of
    from loralab.serving.switch import Switch

    plain, head, maps = found.model, found.head, found.maps
    shared = {id(t): t for t in (*plain.parameters(), *plain.buffers())}
    made: dict[str, Any] = {arm: copy.deepcopy(plain, dict(shared)) for arm in ARMS}
    lora.attach(
        made["unmerged"], maps, head=head, targets=["q", "v"], rank=RANK, alpha=RANK, scaling="alpha/r", init="A",
        init_dist="kaiming", dropout=0.0, bias="none", rank_pattern={}, seed=0,
    )  # fmt: skip
    bottleneck.attach(made["houlsby"], maps, head=head, placement="houlsby", size=BOTTLENECK, activation="gelu", seed=0)
    bottleneck.attach(
        made["pfeiffer"], maps, head=head, placement="pfeiffer", size=BOTTLENECK, activation="gelu", seed=0
    )
    prompts.attach(made["prefix"], head=head, kind="prefix", tokens=TOKENS, hidden=None, seed=0)
    adapter = adapter_of(made["unmerged"], head)
    for name in adapter.updates:
        host = made["merged"].get_submodule(name)
        host.weight = torch.nn.Parameter(host.weight.detach().clone(), requires_grad=False)
    Switch(made["merged"], {"task": adapter}, exact=False).use("task")
    return {arm: model.eval() for arm, model in made.items()}


def trained(model: "nn.Module") -> int:
    """The number of parameters that the method adds."""
    own: Any = [p for m in model.modules() if hasattr(m, "parameter_roles") for p in m.parameters(False)]
    return sum(p.numel() for p in own)


def example(batch: int, length: int) -> "dict[str, Tensor]":
    """Texts without padding."""
    import torch

    ids = torch.randint(5, 100, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def cells(frame: pd.DataFrame) -> list[tuple[int, int]]:
    """(batch, length), sorted by number of tokens."""
    found = frame[["batch", "length"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(found, key=lambda cell: (cell[0] * cell[1], cell[0]))


def times(frame: pd.DataFrame, arm: str, cell: tuple[int, int] | None = None, column: str = "cpu") -> Any:
    """Seconds of each repeat, in order; without a cell, the geometric mean over the cells."""
    rows = frame[frame["arm"] == arm]
    if cell is not None:
        rows = rows[(rows["batch"] == cell[0]) & (rows["length"] == cell[1])]
    return np.exp(np.log(rows[column]).groupby(rows["repeat"]).mean().sort_index()).to_numpy()


def slowdown(
    frame: pd.DataFrame, arm: str, cell: tuple[int, int] | None = None, *, null: float = 1.0, column: str = "cpu"
) -> Interval:
    """An arm's time over the plain backbone's in the same repeat: a geometric mean."""
    return ratio_interval(times(frame, arm, cell, column), times(frame, "plain", cell, column), null=null)


def apart(frame: pd.DataFrame, arm: str) -> Interval:
    """An arm's time over the plain backbone's or its inverse, whichever is above 1, over all cells; null: NEAR."""
    first, second = times(frame, arm), times(frame, "plain")
    if np.log(first).mean() < np.log(second).mean():
        first, second = second, first
    return ratio_interval(first, second, null=NEAR)


def fades(frame: pd.DataFrame, arm: str) -> Interval:
    """An arm's slow-down at the fewest tokens over its slow-down at the most."""
    few, many = cells(frame)[0], cells(frame)[-1]
    own = times(frame, arm, few) / times(frame, "plain", few)
    return ratio_interval(own, times(frame, arm, many) / times(frame, "plain", many))


def draw(frame: pd.DataFrame) -> "Figure":
    """An interval for each arm and cell, in percent; the band counts as no slow-down."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(plotting.DOUBLE, 3.2))
    of = cells(frame)
    ax.axhspan(
        100 * (1 / NEAR - 1), 100 * (NEAR - 1), color="0.87", lw=0, label=f"±{100 * (NEAR - 1):.0f}%: counts as none"
    )
    ax.axhline(0, color="0.4", lw=0.8)
    for at, (arm, colour) in enumerate(zip(NAMES, ("#999999", *plotting.COLOURS), strict=False)):
        places = np.arange(len(of)) + 0.12 * (at - (len(NAMES) - 1) / 2)
        more = [slowdown(frame, arm, cell) for cell in of]
        percent = [replace(each, estimate=each.estimate - 1, low=each.low - 1, high=each.high - 1) for each in more]
        dots(ax, places, percent, colour, NAMES[arm], scale=100)
    ax.set_xticks(range(len(of)), [f"{batch} x {length}" for batch, length in of])
    ax.set(xlabel="batch x length", ylabel="slower than the plain backbone (%)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def caption(frame: pd.DataFrame) -> str:
    noise = slowdown(frame, "again")
    return (
        f"CPU time of a forward pass (one thread, fp32): geometric means of {frame['repeat'].nunique()} pairs, 95%. "
        f"LoRA: r = {RANK} on q and v; bottlenecks of {BOTTLENECK}; {TOKENS} prefix tokens. A second plain backbone is "
        f"at {noise.estimate:.3f} [{noise.low:.3f}, {noise.high:.3f}]. {captions.code(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and cell: milliseconds (medians), and the ratio to the plain backbone in CPU and clock time."""
    rows = []
    for batch, length in cells(frame):
        for arm, name in NAMES.items():
            cpu, wall = (slowdown(frame, arm, (batch, length), column=column) for column in ("cpu", "wall"))
            row = {"batch": batch, "length": length, "arm": name, "trained": _trained(frame, arm)}
            ms = 1e3 * float(np.median(times(frame, arm, (batch, length))))
            ratios = {"ratio": cpu.estimate, "low": cpu.low, "high": cpu.high, "by the clock": wall.estimate}
            rows.append(row | {"ms": round(ms, 2)} | {key: round(value, 3) for key, value in ratios.items()})
    return pd.DataFrame(rows)


def _trained(frame: pd.DataFrame, arm: str) -> int:
    return int(frame.loc[frame["arm"] == arm, "trained"].iloc[0])


def questions(frame: pd.DataFrame) -> list[Question]:
    few = cells(frame)[0]
    merged = Claim("merged LoRA, all cells", slowdown(frame, "merged"), "no added latency", 1.0, exact=True)
    slow = [Claim(NAMES[arm], slowdown(frame, arm, few), paper, number) for arm, (paper, number) in PAPER.items()]
    return [
        Question("does merged LoRA slow a forward pass?", "LoRA, section 4.1", "x", [merged]),
        Question(f"do adapters slow it at batch {few[0]}, length {few[1]}?", "LoRA, Table 1", "x", slow),
    ]


if __name__ == "__main__":
    figures.main(__file__)
