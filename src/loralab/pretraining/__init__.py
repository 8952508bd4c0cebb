"""Masked language models that differ in width alone: texts -> blocks of tokens -> masked batches -> a RoBERTa."""

HEAD_WIDTH = 32
"""Of every attention head, at every width."""
