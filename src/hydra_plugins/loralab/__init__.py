"""What loralab adds to Hydra; Hydra imports every module in here when it starts, so they import nothing heavy."""
