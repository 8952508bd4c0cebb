"""File formats of trained adapters and models."""
