"""A run's folder: its paths and files, which of its checkpoints are good, and the processes that work for it."""
