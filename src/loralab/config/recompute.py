"""Which methods go with `model.gradient_checkpointing`; the families are checked with the backbone."""

from loralab.errors import UserError

__all__ = ["check_recompute"]

CACHED = ("prefix", "lora_prefix")  # their keys and values reach a layer as a cache


def check_recompute(asked: bool, method: str) -> None:
    """Raises UserError for a method whose cache transformers drops where layers are computed twice."""
    if asked and method in CACHED:
        raise UserError(
            f"model.gradient_checkpointing: got true with method={method}, whose keys and values are a cache, which "
            "transformers drops then; set it to false, and train.micro_batch_size=1 for less memory"
        )
