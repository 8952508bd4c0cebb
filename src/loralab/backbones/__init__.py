"""Backbones: name, hub id or directory -> frozen model, tokenizer, head, roles of its linear maps; without LoRA."""
