"""A run's folder: its paths and JSON files, its checkpoints, and its processes."""
