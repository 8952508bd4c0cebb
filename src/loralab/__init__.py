"""loralab: a laboratory for LoRA and LoRA+. `train.py` trains a run, `loralab` looks at what was trained."""

__version__ = "0.1.0"
