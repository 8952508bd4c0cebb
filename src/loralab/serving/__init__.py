"""Many tasks' adapters on one backbone."""
