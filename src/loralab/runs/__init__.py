"""One run: from a config to a trained adapter and its record."""
