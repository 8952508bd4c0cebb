"""Training methods, one per file: each attaches its modules to a backbone and marks the trained parameters."""
