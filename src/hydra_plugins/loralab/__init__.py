"""loralab's Hydra plugins. Hydra imports every module here when it starts, so they import nothing heavy."""
