"""The study `memory`: training memory beyond the weights, and disk space per task, full fine-tuning against LoRA.

`python analysis/memory.py`: results/memory.csv -> figures/memory.{png,pdf}. `loralab study memory` measures it.
Each row runs in its own process: this file with the row's settings after `--row`.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, timing
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import ratio_interval

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = ["method", "rank", "batch", "length", "repeat"]
KEPT = [*KEYS, "device", "weights", "trainable", "above", "predicted", "checkpoint", "commit", "diff"]
STEPS = 3  # in the second step, Adam's moments exist during the backward pass
SHOWN = 4  # the paper's rank for GPT-3's checkpoint of 35 MB
PAPER = {"peak": "1.2 TB to 350 GB", "checkpoint": "350 GB to 35 MB: 10,000x"}
# Freed memory returns to the system at once, so that resident memory equals memory in use.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class Size(NamedTuple):
    """The measurement's size: backbone, ranks, batches x lengths, repeats."""

    model: Literal["minilm", "tiny"]
    ranks: tuple[int, ...]
    cells: tuple[tuple[int, int], ...]
    repeats: int


FULL = Size("minilm", (1, 4, 16, 64), ((1, 16), (32, 64)), 3)
SMOKE = Size("tiny", (4,), ((1, 8),), 1)


def wanted(smoke: bool) -> pd.DataFrame:
    size = SMOKE if smoke else FULL
    methods = [("full", np.nan), *(("lora", rank) for rank in size.ranks)]
    cells = [(*m, *cell, repeat) for m in methods for cell in size.cells for repeat in range(size.repeats)]
    return pd.DataFrame(cells, columns=KEYS)


def measure(smoke: bool) -> pd.DataFrame:
    size, found = SMOKE if smoke else FULL, []
    for row in wanted(smoke).to_dict("records"):
        rank = None if row["method"] == "full" else int(row["rank"])
        asked = {"method": row["method"], "rank": rank, "batch": row["batch"], "length": row["length"]}
        command = [sys.executable, __file__, "--row", json.dumps(asked | {"model": size.model})]
        done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(row | json.loads(done.stdout.splitlines()[-1]))
    return pd.DataFrame(found, columns=KEPT[:-2])


def one(model: Literal["minilm", "tiny"], method: str, rank: int | None, batch: int, length: int) -> dict[str, Any]:
    """A row's values: three steps of a method, on a backbone that is loaded and warmed up before counting starts."""
    import torch

    from loralab.methods import full, lora
    from loralab.methods.formats.peft_lora import save_peft
    from loralab.methods.formats.plain import save_model
    from loralab.training import optim

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = timing.backbone(model, device)
    trained: Any = found.model
    ids = torch.randint(5, 100, (batch, length), device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    _train(trained, [{"params": [p for p in trained.parameters() if p.requires_grad]}], inputs, steps=1)
    weights = sum(p.nbytes for p in trained.parameters())
    gc.collect()
    before = _memory(device, start=True)
    if method == "full":
        full.attach(trained, head=found.head, device=device, dtype=torch.float32)
    else:
        assert rank is not None
        lora.attach(
            trained, found.maps, head=found.head, targets=["q", "v"], rank=rank, alpha=rank, scaling="alpha/r",
            init="A", init_dist="kaiming", dropout=0.0, bias="none", rank_pattern={}, seed=0,
        )  # fmt: skip
    rates: dict[str, Any] = {"lr": 1e-4, "ratio": 1.0, "head_lr": None, "embedding_lr": 1e-4, "weight_decay": 0.0}
    groups = optim.param_groups(trained, head=found.head, **rates)
    _train(trained, groups, inputs, steps=STEPS)
    above = _memory(device) - before
    trainable = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    new = sum(p.nbytes for p in trained.parameters()) - weights
    with tempfile.TemporaryDirectory() as folder:
        if method == "full":
            save_model(trained, Path(folder) / "saved")
        else:
            save_peft(trained, Path(folder) / "saved", head=found.head, base_model=model)
        checkpoint = sum(path.stat().st_size for path in Path(folder).glob("saved/*.safetensors"))
    predicted = new + (4 + 2 * 4) * trainable  # gradients and two moments
    sizes = {"weights": weights, "trainable": trainable, "above": above, "predicted": predicted}
    return {"device": device.type, **sizes, "checkpoint": checkpoint}


def _train(model: Any, groups: list[dict[str, Any]], inputs: "dict[str, torch.Tensor]", *, steps: int) -> None:
    """Steps of AdamW. Gradients and moments are freed afterwards."""
    import torch
    from torch.nn.functional import cross_entropy

    from loralab.training.evaluate import forward
    from loralab.training.optim import adamw

    optimizer = adamw([{"lr": 1e-4, **group} for group in groups], betas=(0.9, 0.999), eps=1e-8)
    for _ in range(steps):
        torch.autograd.backward(cross_entropy(forward(model, inputs), inputs["labels"]))
        optimizer.step()
        optimizer.zero_grad()


def _memory(device: "torch.device", *, start: bool = False) -> int:
    """Bytes in use now, with the peak reset (`start`); or the peak since then."""
    import torch

    if device.type == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) if start else torch.cuda.max_memory_allocated(device)
    if start:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak to the current value
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmRSS" if start else "VmHWM"].split()[0])


def label(method: str, rank: float) -> str:
    return "full" if method == "full" else f"LoRA, r = {rank:.0f}"


def methods(frame: pd.DataFrame) -> list[tuple[str, float]]:
    """Full fine-tuning, then LoRA by rank."""
    found = frame[["method", "rank"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(found, key=lambda pair: (pair[0] != "full", pair[1]))


def cells(frame: pd.DataFrame) -> list[tuple[int, int]]:
    return sorted(frame[["batch", "length"]].drop_duplicates().itertuples(index=False, name=None))


def of(frame: pd.DataFrame, method: str, rank: float, cell: tuple[int, int]) -> pd.DataFrame:
    """A method's rows at a batch x length, in the order of their repeats."""
    rows = frame[(frame["method"] == method) & (frame["batch"] == cell[0]) & (frame["length"] == cell[1])]
    rows = rows if method == "full" else rows[rows["rank"] == rank]
    return rows.assign(peak=rows["weights"] + rows["above"]).sort_values("repeat")


def shown(frame: pd.DataFrame) -> float:
    """The rank of the claims."""
    ranks = [rank for method, rank in methods(frame) if method == "lora"]
    return SHOWN if SHOWN in ranks else ranks[0]


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    every = cells(frame)
    figure, axes = plt.subplots(1, len(every) + 1, figsize=(plotting.DOUBLE, 2.8), squeeze=False, sharey=True)
    for ax, cell in zip(axes[0], every, strict=False):
        _peaks(ax, frame, cell)
    _checkpoints(axes[0][-1], frame)
    axes[0][0].set_yticks(range(len(methods(frame))), [label(*method) for method in methods(frame)])
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _peaks(ax: "Axes", frame: pd.DataFrame, cell: tuple[int, int]) -> None:
    """Bars: the weights, and the measured memory above them; lines: the formula, which leaves out activations."""
    rows = [of(frame, *method, cell) for method in methods(frame)]
    weights, above, predicted = (
        np.array([row[column].mean() / 1e6 for row in rows]) for column in ("weights", "above", "predicted")
    )
    y = np.arange(len(rows))
    ax.barh(y, weights, color="0.8", label="weights")
    ax.barh(y, above, left=weights, color=plotting.COLOURS[5], label="measured above them")
    ax.vlines(weights + predicted, y - 0.4, y + 0.4, color=plotting.COLOURS[1], label="formula, no activations", lw=2)
    _shares(ax, weights + above)
    ax.set(xlabel="peak memory (MB)", title=f"training on {cell[0]} x {cell[1]} tokens")


def _checkpoints(ax: "Axes", frame: pd.DataFrame) -> None:
    every = methods(frame)
    sizes = np.array([of(frame, *method, cells(frame)[0])["checkpoint"].mean() / 1e6 for method in every])
    ax.barh(np.arange(len(every)), sizes, color="0.8")
    ax.set_xscale("log")
    _shares(ax, sizes)
    ax.set(xlabel="MB (logarithmic)", title="a task on disk")


def _shares(ax: "Axes", sizes: Any) -> None:
    """Beside each bar after the first, which is full fine-tuning's: its part of that."""
    for place, part in list(enumerate(sizes / sizes[0]))[1:]:
        text = f"{part:.0%} of full" if part > 0.1 else f"1/{1 / part:,.0f} of full"
        ax.annotate(text, (sizes[place], place), (4, 0), textcoords="offset points", va="center")
    ax.margins(x=0.2)


def caption(frame: pd.DataFrame) -> str:
    where = "torch's allocated" if frame["device"].iloc[0] == "cuda" else "resident"
    return (
        f"Peak {where} memory of {STEPS} steps of AdamW in fp32, over the loaded backbone's, a fresh process each "
        f"(means of {frame['repeat'].nunique()}). Formula: 4 bytes each for new weights, gradients and both moments; "
        f"activations are not in it. LoRA on q and v; the head is trained in all. {captions.code(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method and batch, in MB: weights, peak above them, formula, the rest, and disk space."""
    rows = []
    for cell in cells(frame):
        for method in methods(frame):
            mean = of(frame, *method, cell)[["weights", "above", "predicted", "checkpoint", "trainable"]].mean()
            row = {"batch": cell[0], "length": cell[1], "method": label(*method), "trainable": int(mean["trainable"])}
            sizes = {key: round(mean[key] / 1e6, 3) for key in ("weights", "above", "predicted", "checkpoint")}
            rows.append(row | sizes | {"not predicted": round((mean["above"] - mean["predicted"]) / 1e6, 3)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    rank, peaks = shown(frame), []
    for cell in cells(frame):
        lora, full = of(frame, "lora", rank, cell), of(frame, "full", np.nan, cell)
        found = ratio_interval(full["peak"], lora["peak"])
        peaks.append(Claim(f"{cell[0]} x {cell[1]} tokens", found, PAPER["peak"], 1200 / 350))
    less = ratio_interval(full["checkpoint"], lora["checkpoint"])
    saved = [Claim("full fine-tuning over LoRA", less, PAPER["checkpoint"], 10_000.0)]
    return [
        Question(f"how much less memory does LoRA (r = {rank:.0f}) train in?", "LoRA, section 4.2", "x", peaks),
        Question(f"how much smaller is its checkpoint (r = {rank:.0f})?", "LoRA, section 4.2", "x", saved),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(one(**json.loads(sys.argv[2]))))
    else:
        figures.main(__file__)
