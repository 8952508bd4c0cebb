"""The commands: `loralab ...`, and the entries that Hydra starts."""
