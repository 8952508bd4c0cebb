"""`Switch` under the name that scripts import."""

from loralab.serving.switch import Switch

__all__ = ["Switch"]
