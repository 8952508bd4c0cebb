"""Speed of loralab's changes to a backbone's forward pass on a CPU: a step's gradient, and evaluation.

    python benchmarks/attention.py         MiniLM with LoRA on q and v, every fifth batch of an epoch; a minute

One thread; overrides of the config may follow (task=trec). The variants alternate on every batch. Each figure is the
minimum CPU time of three repeats, averaged over the batches.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from torch.nn.functional import cross_entropy

from loralab import tasks
from loralab.backbones.attention import use_fp32_softmax
from loralab.backbones.first_token import narrow_last_layer
from loralab.config.compose import configs
from loralab.config.schema import from_hydra
from loralab.runs.build import adapted_backbone, read_task
from loralab.runs.plan import plan
from loralab.training.batches import Order, by_length
from loralab.training.evaluate import forward

CONF = Path(__file__).resolve().parents[1] / "conf"


def stock(model: Any) -> None:
    """Restores the model of transformers, with eager attention."""
    vars(model.base_model.encoder.layer[-1]).pop("forward", None)
    model.set_attn_implementation("eager")


WAYS: dict[str, tuple[Callable[[Any], object], ...]] = {
    "stock": (stock,),
    "softmax in fp32": (stock, use_fp32_softmax),
    "last layer narrowed": (stock, narrow_last_layer),
    "both": (stock, use_fp32_softmax, narrow_last_layer),
}


def main() -> None:
    """Measures and prints the times."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as store, configs():
        planned = plan(from_hydra(compose("config", [f"store={store}", "train.device=cpu", *sys.argv[1:]])))
        task = read_task(planned)
        backbone = adapted_backbone(planned, task)
        splits = tasks.tokenise(task, backbone.tokenizer, tokenizer_identity="any", max_length=128, cache=Path(store))
    model: Any = backbone.model
    order = Order(splits["train"].lengths, batch_size=32, seed=0, bucketing=True)
    training = [order.batch(step) for step in range(0, order.per_epoch, 5)]
    evaluation = by_length(splits["validation"].lengths, batch_size=64)[::5]
    for split, batches in {"train": training, "validation": evaluation}.items():
        spent = dict.fromkeys(WAYS, 0.0)
        for indices in batches:
            batch = tasks.collate(splits[split], indices, pad_id=model.config.pad_token_id)
            least = dict.fromkeys(WAYS, float("inf"))
            for _ in range(3):
                for way, changes in WAYS.items():
                    for change in changes:
                        change(model)
                    start = time.process_time()
                    with torch.inference_mode(split != "train"):
                        loss = cross_entropy(forward(model, batch), batch["labels"])
                        if split == "train":
                            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
                    least[way] = min(least[way], time.process_time() - start)
            spent = {way: spent[way] + 1e3 * least[way] / len(batches) for way in WAYS}
        for way, figure in spent.items():
            print(f"{split:<12}{way:<22}{figure:7.1f} ms a batch, {spent['stock'] / figure:5.2f}x")


if __name__ == "__main__":
    main()
