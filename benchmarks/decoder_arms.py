"""One arm of benchmarks/decoder_time.py, in a process of its own; prints {value, variant, tokens} as JSON.

Arms: ours; stock, HF Trainer + PEFT (or `generate`) as the libraries come; tuned, with the fastest settings that a user
can choose without writing code; floor, the matrix products alone. All have the same texts and weights.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from floor import fastest_ms
from hydra import compose
from numpy.typing import NDArray
from peers import optimisation
from torch import Tensor

from loralab.backbones.load import Backbone
from loralab.config.compose import configs
from loralab.config.schema import from_hydra
from loralab.runs.build import adapted_backbone, objective, read_task
from loralab.runs.plan import Plan, plan
from loralab.tasks.tokenise_pairs import collate_contexts
from loralab.training import optim
from loralab.training.batches import Order, by_length
from loralab.training.generate import decode
from loralab.training.gradient import CPU_PARTS, backward
from loralab.training.loop import Batch, Progress, complete
from loralab.training.loop import train as train_loop
from loralab.training.threads import Workers

TASKS = {"classify": "trec", "answer": "sql", "generate": "sql"}
WARM_UP = 3  # steps before the window
ROWS = 32  # examples of a batch of generation
NEW_TOKENS = 32  # no text ends before, so that all arms generate equal numbers


@dataclass(frozen=True)
class Setting:
    """What is measured: `planned` has the weights and the adapter; `task` has the texts."""

    planned: Plan
    backbone: Backbone
    task: Any
    order: Order
    steps: int
    threads: int

    @property
    def batch(self) -> int:
        return self.order.batch_size


def setting(part: str, overrides: list[str], *, batch: int, steps: int, threads: int) -> Setting:
    """The model with LoRA on q and v, r = 8, and the tokenised texts."""
    with configs():
        given = ["model=smollm2", f"task={TASKS[part]}", "train.device=cpu", "tracker=none", *overrides]
        planned = plan(from_hydra(compose("config", given)))
        raw = read_task(planned)
        backbone = adapted_backbone(planned, raw)
        task = objective(planned, raw, backbone)
    order = Order(task.lengths("train"), batch_size=batch, seed=0, bucketing=True)
    return Setting(planned, backbone, task, order, WARM_UP + steps, threads)


def ours(s: Setting) -> dict[str, Any]:
    """The loop of `python train.py`: mean milliseconds of a step."""
    model: Any = s.backbone.model
    groups = optim.param_groups(
        model, head=s.backbone.head, lr=1e-4, ratio=16, head_lr=None, embedding_lr=1e-4, weight_decay=0.0,
        layout="roles",
    )  # fmt: skip
    marks: list[float] = []
    with Workers(s.threads) as workers:
        scaler = torch.amp.GradScaler("cpu", enabled=False)

        def gradient(step: int) -> Tensor:
            return backward(
                model, s.task.batch("train", s.order.batch(step)), loss_of=s.task.loss, scaler=scaler,
                parameters=[p for group in groups for p in group["params"]], workers=workers, parts=CPU_PARTS,
            )  # fmt: skip

        training = train_loop(
            model, optim.adamw(groups, betas=(0.9, 0.999), eps=1e-8), steps=s.steps,
            fetch=lambda step: Batch(0, partial(gradient, step)), factor=lambda _: 1.0, scaler=scaler,
            clip=1.0, log_every=1, progress=Progress(), evaluation_due=lambda _: False, evaluate=lambda _: None,
            log=lambda *_: marks.append(time.monotonic()), checkpoint=lambda _: None,
        )  # fmt: skip
        complete(training)
    return {"value": window(marks), "variant": "bf16"}


def window(marks: list[float]) -> float:
    """Mean milliseconds of the steps after the warm-up."""
    return 1e3 * float(np.mean([later - earlier for earlier, later in pairwise(marks[WARM_UP - 1 :])]))


def peer_model(s: Setting, *, generates: bool, attention: str | None) -> Any:
    """The model in bf16 with PEFT's LoRA on q and v; `attention` None is the library's default."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    chosen: dict[str, Any] = {"dtype": torch.bfloat16, "pad_token_id": s.backbone.model.config.pad_token_id}
    if attention is not None:
        chosen["attn_implementation"] = attention
    folder = s.planned.source.directory
    if generates:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **chosen)
    else:
        labels = s.backbone.model.config.num_labels
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, **chosen)
    kind = TaskType.CAUSAL_LM if generates else TaskType.SEQ_CLS
    adapter = LoraConfig(task_type=kind, r=8, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, adapter)


def examples(s: Setting) -> list[dict[str, Any]]:
    """The training texts as Trainer reads them."""
    split = s.task.splits["train"]
    rows: list[dict[str, Any]] = []
    for i in range(len(split)):
        if hasattr(split, "context_ids"):
            context, target = piece(split, "context", i), piece(split, "target", i)
            rows.append({"input_ids": context + target, "labels": [-100] * len(context) + target})
        else:
            ids = split.input_ids[split.offsets[i] : split.offsets[i + 1]].tolist()
            rows.append({"input_ids": ids, "labels": int(split.labels[i])})
    return rows


def piece(split: Any, side: str, i: int) -> list[int]:
    """The ids of one side of a pair."""
    ids, offsets = getattr(split, f"{side}_ids"), getattr(split, f"{side}_offsets")
    found: list[int] = ids[offsets[i] : offsets[i + 1]].tolist()
    return found


def trainer(s: Setting, *, generates: bool, tuned: bool) -> dict[str, Any]:
    """`Trainer.train()`: mean milliseconds of a step. Tuned: eager attention, and batches of similar lengths."""
    import datasets
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, Trainer, TrainerCallback

    torch.set_num_threads(s.threads)
    datasets.disable_progress_bars()
    rows = examples(s)
    data = datasets.Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in rows])
    model = peer_model(s, generates=generates, attention="eager" if tuned else None)
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.monotonic())

    arguments, optimizers = optimisation(
        model, steps=s.steps, batch=s.batch, lr=1e-4, ratio=16, grouped=tuned, precision="weights", seed=0
    )
    collate = DataCollatorForSeq2Seq if generates else DataCollatorWithPadding
    Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collate(s.backbone.tokenizer),
        optimizers=optimizers, callbacks=[Clock()],
    ).train()  # fmt: skip
    return {"value": window(marks), "variant": "eager, grouped" if tuned else "sdpa, random order"}


def contexts(s: Setting, batches: int) -> list[NDArray[np.int64]]:
    """Batches of validation contexts of similar lengths."""
    return by_length(s.task.lengths("validation"), batch_size=ROWS)[10 : 10 + batches]


def read(s: Setting, at: NDArray[np.int64]) -> dict[str, Tensor]:
    """Contexts as the model reads them, padded on the left."""
    return collate_contexts(s.task.splits["validation"], at, pad_id=s.task.pad_id, left=True)


def generate_ours(s: Setting) -> dict[str, Any]:
    """Generated tokens a second, as at an evaluation."""
    order = contexts(s, s.threads)
    began = time.monotonic()
    with Workers(s.threads) as workers:
        decode(
            s.backbone.model, order, lambda at: read(s, at), rows=len(s.task.splits["validation"]), beams=1,
            length_penalty=1.0, max_new_tokens=NEW_TOKENS, eos_id=s.backbone.model.config.vocab_size,
            pad_id=s.task.pad_id, check=lambda: None, workers=workers,
        )  # fmt: skip
    return {"value": ROWS * len(order) * NEW_TOKENS / (time.monotonic() - began), "variant": "bf16"}


def generate_peer(s: Setting, *, tuned: bool) -> dict[str, Any]:
    """`generate` of PEFT's model: tokens a second. Tuned: eager attention."""
    torch.set_num_threads(s.threads)
    model = peer_model(s, generates=True, attention="eager" if tuned else None).eval()
    batches = [read(s, at) for at in contexts(s, s.threads)]
    chosen = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    began = time.monotonic()
    with torch.inference_mode():
        for batch in batches:
            model.generate(**batch, **chosen, pad_token_id=s.task.pad_id)
    return {
        "value": ROWS * len(batches) * NEW_TOKENS / (time.monotonic() - began),
        "variant": "eager" if tuned else "sdpa",
    }


def floor(s: Setting, part: str) -> dict[str, Any]:
    """The products of the frozen maps alone: milliseconds of a step, or tokens a second of generation.

    Backward products are those for the inputs' gradients; attention, norms and the adapter are not counted.
    """
    torch.set_num_threads(s.threads)
    model: Any = s.backbone.model
    passes: tuple[bool, ...] = (False, True)
    if part == "generate":
        tokens, at_output, passes = ROWS, ROWS, (False,)
    else:
        steps = [s.task.batch("train", s.order.batch(step)) for step in range(WARM_UP, s.steps)]
        tokens = round(float(np.mean([int(b["attention_mask"].sum()) for b in steps])))
        kept = [int(b["logits_to_keep"].sum()) for b in steps if "logits_to_keep" in b]
        at_output = round(float(np.mean(kept))) if kept else 0

    def products(n: int, weight: Tensor) -> float:
        x, g = torch.randn(n, weight.shape[1]).to(weight.dtype), torch.randn(n, weight.shape[0]).to(weight.dtype)
        work: dict[bool, Callable[[], Tensor]] = {False: lambda: x @ weight.T, True: lambda: g @ weight}
        return sum(fastest_ms(work[back]) for back in passes)

    layer = [m.weight for _, m in model.base_model.layers[0].named_modules() if getattr(m, "in_features", None)]
    ms = len(model.base_model.layers) * sum(products(tokens, weight.detach()) for weight in layer)
    if at_output:
        ms += products(at_output, model.get_output_embeddings().weight.detach())
    return {"value": 1e3 * ROWS / ms if part == "generate" else ms, "variant": "products alone"}


def main() -> None:
    """Prints the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=TASKS, required=True)
    parser.add_argument("--arm", choices=("ours", "stock", "tuned", "floor"), required=True)
    for name in ("batch", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("overrides", nargs="*")
    a = parser.parse_args()
    s = setting(a.part, a.overrides, batch=a.batch, steps=a.steps, threads=a.threads)
    if a.arm == "floor":
        found = floor(s, a.part)
    elif a.part == "generate":
        found = generate_ours(s) if a.arm == "ours" else generate_peer(s, tuned=a.arm == "tuned")
    else:
        found = ours(s) if a.arm == "ours" else trainer(s, generates=a.part == "answer", tuned=a.arm == "tuned")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
