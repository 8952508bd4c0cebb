"""One whole run of HF Trainer + PEFT + create_loraplus_optimizer, like a user's script; prints one JSON object.

The peer of benchmarks/sweep.py, one process per run: trains, evaluates on validation and predicts test once at the end,
and saves its adapter. It uses the weights, rows, adapter and schedule of `python train.py`. It is tuned as far as its
libraries allow: dynamic padding, batches grouped by length, bf16 frozen weights, eager attention and fused AdamW (the
fastest of benchmarks/step_time.py), token ids cached on disk after the first run, evaluation in batches of similar
lengths, and no logging, tracking or checkpoints. Its classifier is in bf16 too, since PEFT casts only A and B to fp32.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peers import MAX_LENGTH, backbone, build_model, optimisation

EVALUATION_BATCH = 64  # as in loralab


def tokenised(tokenizer: Any, cache: Path) -> Any:
    """The three splits as a DatasetDict, memory-mapped from `cache`; tokenises them first if `cache` does not exist.

    Validation and test are sorted by length, longest first.
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
        except OSError:  # another process was faster
            shutil.rmtree(temporary)
    return datasets.load_from_disk(cache)


def _read() -> dict[str, tuple[list[str], list[int]]]:
    from loralab import tasks

    raw = tasks.read(tasks.TaskSettings("rotten_tomatoes"))
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
    """Returns {validation, test: accuracy at the last step, rows: of each split}; saves the adapter to `to`."""
    torch.set_num_threads(threads)
    import datasets
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer

    class InOrder(Trainer):  # type: ignore[misc]  # transformers is untyped here
        """Evaluates the rows in their order, by length; Trainer's grouping would shuffle them first."""

        def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
            return SequentialSampler(eval_dataset)

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(backbone())
    splits = tokenised(tokenizer, cache)
    model = build_model(backbone(), attention=attention, precision=precision, seed=seed)
    arguments, optimizers = optimisation(
        model,
        steps=steps,
        batch=batch,
        lr=lr,
        ratio=ratio,
        grouped=True,
        precision=precision,
        seed=seed,
        per_device_eval_batch_size=EVALUATION_BATCH,
        label_names=["labels"],
    )
    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=splits["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda seen: {"accuracy": float((seen.predictions.argmax(-1) == seen.label_ids).mean())},
        optimizers=optimizers,
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
