"""Masked language models that differ only in width: texts -> blocks of tokens -> masked batches -> a RoBERTa."""
