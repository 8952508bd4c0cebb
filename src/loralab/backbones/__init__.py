"""Name, hub id or directory -> frozen model, tokenizer, head, and the roles of its linear maps. Knows no LoRA."""
