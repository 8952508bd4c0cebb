"""Many tasks' adapters on one backbone."""

from loralab.serving.adapters import read_adapter

__all__ = ["read_adapter"]
