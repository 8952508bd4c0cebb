"""`attach_peft` under the name that scripts import."""

from loralab.methods.formats.peft_lora import attach_peft

__all__ = ["attach_peft"]
