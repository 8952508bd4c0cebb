"""The study `switching`: the cost of switching tasks on one backbone, and of serving several tasks at once.

`python analysis/switching.py`: results/switching.csv -> figures/switching.{png,pdf}. Measured by
`loralab study switching`.
"""

import copy
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, timing
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.backbones.load import Backbone
    from loralab.serving.adapters import TaskAdapter

# way: the way to switch; count: rows for each adapter (mixed), switches (drift).
KEYS = ["part", "way", "targets", "rank", "dtype", "count", "repeat"]
KEPT = [*KEYS, "cpu", "wall", "bytes", "off", "commit", "diff"]
TARGETS = {"q,v": ["q", "v"], "all": ["all"]}
LORA = {"memory": "LoRA, in place", "disk": "LoRA, from disk"}
WHOLE = {"copy": "whole model, copied", "load": "whole model, from disk"}
WAYS = ("bank", "merged", "switched")
PASSES = {"merged": "eight merged models", "switched": "one model, switched"}
DTYPES = ("float32", "bfloat16")
SHOWN = 8  # the rank of drift and mixed, and of the claims
TASKS = 8
LENGTH = 24  # tokens per text


class Size(NamedTuple):
    """The measurement's size: backbone, ranks, switches, rows for each adapter, repeats."""

    model: Literal["minilm", "tiny"]
    ranks: tuple[int, ...]
    switches: tuple[int, ...]
    rows: tuple[int, ...]
    repeats: int


FULL = Size("minilm", (1, 4, 8, 16, 64), (2, 10, 100, 1000), (1, 2, 4, 8), 50)
SMOKE = Size("tiny", (1, 8), (2, 5), (1, 2), 3)
SEEDS = 3  # of drift


def wanted(smoke: bool) -> pd.DataFrame:
    size = SMOKE if smoke else FULL
    every = range(size.repeats)
    rows: list[tuple[Any, ...]] = []
    for way in LORA:
        rows += [("switch", way, t, rank, None, None, r) for t in TARGETS for rank in size.ranks for r in every]
    rows += [("switch", way, None, None, None, None, r) for way in WHOLE for r in every]
    rows += [("drift", "moved", "q,v", SHOWN, d, n, r) for d in DTYPES for n in size.switches for r in range(SEEDS)]
    rows += [("mixed", way, "q,v", SHOWN, None, n, r) for way in WAYS for n in size.rows for r in every]
    return pd.DataFrame(rows, columns=KEYS)


def measure(smoke: bool) -> pd.DataFrame:
    """The rows of `wanted`, part by part; timed actions run in turn, in a new order each time."""
    size = SMOKE if smoke else FULL
    found = timing.backbone(size.model)
    found.model.requires_grad_(False)
    with timing.one_thread(), tempfile.TemporaryDirectory() as folder:
        rows = [*_switches(found, size, Path(folder)), *_drift(found, size), *_mixed(found, size)]
    return pd.DataFrame(rows).reindex(columns=KEPT[:-2])


def _adapted(found: "Backbone", targets: str, rank: int, seed: int) -> Any:
    """A copy of the backbone with an adapter of the size that training produces."""
    import torch

    from loralab.methods import lora

    model = copy.deepcopy(found.model)
    for name in found.head:
        model.get_submodule(name).requires_grad_(True)
    lora.attach(
        model, found.maps, head=found.head, targets=TARGETS[targets], rank=rank, alpha=rank, scaling="alpha/r",
        init="A", init_dist="kaiming", dropout=0.0, bias="none", rank_pattern={}, seed=seed,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return model


def _adapter(found: "Backbone", targets: str, rank: int, seed: int) -> "TaskAdapter":
    from loralab.serving.adapters import adapter_of

    return adapter_of(_adapted(found, targets, rank, seed), found.head)


def _switches(found: "Backbone", size: Size, folder: Path) -> Iterator[dict[str, Any]]:
    """Switches between two tasks, in every way."""
    from safetensors.torch import load_file, save_file

    actions: dict[tuple[Any, ...], Callable[[int], Any]] = {}
    nbytes: dict[tuple[Any, ...], int] = {}
    for targets in TARGETS:
        for rank in size.ranks:
            for way, (action, of_adapter) in _lora_ways(found, targets, rank, folder).items():
                actions[way, targets, rank], nbytes[way, targets, rank] = action, of_adapter
    model = copy.deepcopy(found.model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(state, folder / "whole.safetensors")
    actions["copy", None, None] = lambda _repeat: model.load_state_dict(state)
    actions["load", None, None] = lambda _repeat: model.load_state_dict(load_file(folder / "whole.safetensors"))
    whole = sum(value.nbytes for value in state.values())
    for key, row in timing.in_turn(actions, repeats=size.repeats):
        yield dict(zip(("way", "targets", "rank"), key, strict=True)) | row | {
            "part": "switch", "bytes": nbytes.get(key, whole),
        }  # fmt: skip


def _lora_ways(found: "Backbone", targets: str, rank: int, folder: Path) -> dict[str, tuple[Callable[[int], Any], int]]:
    """way -> the action that switches to the other of two tasks, and the bytes of one."""
    from loralab.methods.formats.peft_lora import save_peft
    from loralab.serving.adapters import read_adapter
    from loralab.serving.switch import Switch

    names = [folder / f"{targets}-{rank}-{seed}" for seed in range(2)]
    for seed, name in enumerate(names):
        save_peft(_adapted(found, targets, rank, seed), name, head=found.head, base_model="minilm")
    both = {str(name): read_adapter(name) for name in names}
    switch = Switch(copy.deepcopy(found.model), both)
    model, held = copy.deepcopy(found.model), deque[Switch](maxlen=1)

    def use(repeat: int) -> None:
        switch.use(str(names[repeat % 2]))

    def read(repeat: int) -> None:
        if held:
            held.pop().use(None)
        held.append(Switch(model, {"task": read_adapter(names[repeat % 2])}, exact=False))
        held[0].use("task")

    nbytes = both[str(names[0])].nbytes
    return {"memory": (use, nbytes), "disk": (read, nbytes)}


def _drift(found: "Backbone", size: Size) -> Iterator[dict[str, Any]]:
    """Distance of the adapted maps from W0 + scaling B A, in units of their largest weight."""
    import torch

    from loralab.serving.switch import Switch

    for seed in range(SEEDS):
        adapters = {str(at): _adapter(found, "q,v", SHOWN, 10 * seed + at) for at in range(3)}
        for dtype in DTYPES:
            model, other = (copy.deepcopy(found.model).to(getattr(torch, dtype)) for _ in range(2))
            moved, exact = Switch(model, adapters, exact=False), Switch(other, adapters)
            for done in range(1, max(size.switches) + 1):
                moved.use(str(done % len(adapters)))
                if done in size.switches:
                    exact.use(moved.active)
                    pairs = [(moved.hosts[name].weight, exact.hosts[name].weight) for name in exact.hosts]
                    off = max(float((a.float() - b.float()).abs().max() / b.float().abs().max()) for a, b in pairs)
                    key = {"part": "drift", "way": "moved", "targets": "q,v", "rank": SHOWN, "dtype": dtype}
                    yield key | {"count": done, "repeat": seed, "off": off}


def _mixed(found: "Backbone", size: Size) -> Iterator[dict[str, Any]]:
    """A batch for eight adapters: in one mixed batch, or one pass per adapter."""
    import torch

    from loralab.methods.lora import merge
    from loralab.serving.mixed_batch import AdapterBank
    from loralab.serving.switch import Switch

    adapters = {str(at): _adapter(found, "q,v", SHOWN, at) for at in range(TASKS)}
    bank = AdapterBank(copy.deepcopy(found.model), adapters)
    served = copy.deepcopy(found.model)
    switch = Switch(served, adapters)
    merged = {str(at): _adapted(found, "q,v", SHOWN, at) for at in range(TASKS)}
    for model in merged.values():
        merge(model)
    actions: dict[tuple[str, int], Callable[[int], Any]] = {}
    for rows in size.rows:
        ids = torch.randint(5, 100, (TASKS * rows, LENGTH), generator=torch.Generator().manual_seed(rows))
        names = [name for name in adapters for _ in range(rows)]
        groups = dict(zip(adapters, torch.split(ids, rows), strict=True))
        actions["bank", rows] = partial(_through_bank, bank, names, ids)
        actions["merged", rows] = partial(_through_each, merged, groups)
        actions["switched", rows] = partial(_through_switch, switch, served, groups)
    for (way, rows), row in timing.in_turn(actions, repeats=size.repeats):
        yield {"part": "mixed", "way": way, "targets": "q,v", "rank": SHOWN, "count": rows} | row


def _through_bank(bank: Any, names: list[str], ids: Any, _repeat: int) -> None:
    bank(names, input_ids=ids)


def _through_each(models: dict[str, Any], groups: dict[str, Any], _repeat: int) -> None:
    import torch

    with torch.inference_mode():
        for name, ids in groups.items():
            models[name](input_ids=ids)


def _through_switch(switch: Any, model: Any, groups: dict[str, Any], _repeat: int) -> None:
    import torch

    for name, ids in groups.items():
        switch.use(name)
        with torch.inference_mode():
            model(input_ids=ids)


def times(frame: pd.DataFrame, part: str, way: str, column: str = "cpu", **where: Any) -> Any:
    """Seconds of each repeat, in order."""
    rows = frame[(frame["part"] == part) & (frame["way"] == way)]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows.sort_values("repeat")[column].to_numpy(dtype=float)


def cheaper(frame: pd.DataFrame, whole: str, way: str, targets: str, rank: float, column: str = "cpu") -> Interval:
    """Time of a whole model's switch over that of LoRA's switch."""
    own = times(frame, "switch", way, column, targets=targets, rank=rank)
    return ratio_interval(times(frame, "switch", whole, column), own)


def faster(frame: pd.DataFrame, way: str, count: int, column: str = "cpu") -> Interval:
    """Time of eight passes over that of one mixed batch, at this number of rows for each adapter."""
    return ratio_interval(
        times(frame, "mixed", way, column, count=count), times(frame, "mixed", "bank", column, count=count)
    )


def values(frame: pd.DataFrame, part: str, column: str) -> list[Any]:
    return sorted(frame.loc[frame["part"] == part, column].dropna().unique().tolist())


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 3.2), width_ratios=(1.2, 1, 1.1))
    _costs(axes[0], frame)
    _drifts(axes[1], frame)
    _mixtures(axes[2], frame)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper left",
        ncols=3,
        title="to switch the task:",
        alignment="left",
    )
    return figure


def _costs(ax: "Axes", frame: pd.DataFrame) -> None:
    """Medians by rank; a whole model has no rank and is a horizontal line."""
    ranks = values(frame, "switch", "rank")
    for targets, colour in zip(TARGETS, plotting.COLOURS, strict=False):
        for way, style in zip(LORA, ("o-", "s--"), strict=True):
            found = [1e3 * np.median(times(frame, "switch", way, targets=targets, rank=rank)) for rank in ranks]
            ax.plot(ranks, found, style, color=colour, label=f"{LORA[way]}, {targets.replace(',', ' and ')}")
    for way, style in zip(WHOLE, ("-", "--"), strict=True):
        ax.axhline(1e3 * np.median(times(frame, "switch", way)), color="black", ls=style, lw=0.8, label=WHOLE[way])
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    plotting.label_powers(ax.xaxis, ranks)
    ax.set(xlabel="rank", ylabel="CPU time (ms)", title="a) time to switch")
    plotting.label_powers(ax.yaxis, [1, 2, 5, 10, 20, 50])


def _drifts(ax: "Axes", frame: pd.DataFrame) -> None:
    rows = frame[frame["part"] == "drift"]
    for dtype, colour in zip(DTYPES, plotting.COLOURS[2:], strict=False):
        line = rows[rows["dtype"] == dtype].groupby("count")["off"].mean()
        ax.plot(line.index, line, "o-", color=colour, label={"float32": "fp32", "bfloat16": "bf16"}[dtype])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="switches", ylabel="largest weight error / max |W|", title="b) error without a copy")
    ax.legend(loc="center left")


def _mixtures(ax: "Axes", frame: pd.DataFrame) -> None:
    counts = values(frame, "mixed", "count")
    for way, colour in zip(PASSES, plotting.COLOURS[4:], strict=False):
        dots(ax, counts, [faster(frame, way, count) for count in counts], colour, PASSES[way], join="-")
    ax.axhline(1, color="0.5", lw=0.6)
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, counts)
    ax.set(xlabel="rows of each of 8 tasks", ylabel="time / time of one mixed batch", title="c) a mixed batch")
    ax.legend(loc="upper right", borderaxespad=0)


def caption(frame: pd.DataFrame) -> str:
    n = frame.loc[frame["part"] == "switch", "repeat"].nunique()
    return (
        f"a: medians of {n} switches between two tasks, CPU time of one thread, fp32; files are cached. "
        f"b: adapters of r = {SHOWN} on q and v; a weight's largest distance from W0 + scaling B A; a switch that "
        f"keeps W0 is exact. c: eight passes over one mixed batch, {LENGTH} tokens a text, r = {SHOWN}: geometric "
        f"means of {n} pairs with t intervals. {captions.code(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Each way to switch in ms and bytes; the drift; the time of eight passes over that of a mixed batch."""
    rows: list[dict[str, Any]] = []
    for (way, targets, rank), own in frame[frame["part"] == "switch"].groupby(["way", "targets", "rank"], dropna=False):
        name = WHOLE[str(way)] if way in WHOLE else f"{LORA[str(way)]}, {targets}, r = {rank:.0f}"
        both = {column: f"{1e3 * own[column].median():.3g} ms" for column in ("cpu", "wall")}
        rows.append({"what": name, "CPU": both["cpu"], "clock": both["wall"], "bytes": f"{own['bytes'].iloc[0]:.0f}"})
    for (dtype, count), own in frame[frame["part"] == "drift"].groupby(["dtype", "count"]):
        rows.append({"what": f"{dtype}, off after {count:.0f} switches", "CPU": f"{own['off'].mean():.2g}"})
    for way, name in PASSES.items():
        for count in values(frame, "mixed", "count"):
            cpu, wall = (f"{faster(frame, way, count, column).estimate:.2f}x" for column in ("cpu", "wall"))
            rows.append({"what": f"{name} over mixed, {count:.0f} rows each", "CPU": cpu, "clock": wall})
    return pd.DataFrame(rows).fillna("")


def questions(frame: pd.DataFrame) -> list[Question]:
    ways = (("copy", "memory", "in memory"), ("load", "disk", "from disk"))
    less = [Claim(how, cheaper(frame, whole, way, "q,v", SHOWN), "much lower cost") for whole, way, how in ways]
    counts = values(frame, "mixed", "count")
    eight = [
        Claim(f"{count:.0f} rows for each adapter", faster(frame, "merged", count), "possible") for count in counts
    ]
    switch = f"how many times longer does a whole model's switch take than LoRA's (r = {SHOWN}, q and v)?"
    passes = "how many times longer do eight passes of merged models take than one mixed batch?"
    source = "LoRA, section 4.2"
    return [Question(switch, source, "x", less), Question(passes, source, "x", eight)]


if __name__ == "__main__":
    figures.main(__file__)
