"""LoRA+'s models of width, exact and small: what its theory says, and what training them does."""
