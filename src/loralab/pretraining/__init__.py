"""Masked language models that differ in width alone: texts -> blocks of tokens -> masked batches -> a RoBERTa."""
