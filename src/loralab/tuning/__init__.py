"""The learning rate and λ for a model and a task, at the cost of a few runs."""
