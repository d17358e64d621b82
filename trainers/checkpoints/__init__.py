"""Checkpoints: staging a copy of the state in memory, writing it beside the training, finding and loading it."""
