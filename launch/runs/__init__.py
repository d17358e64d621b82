"""Existing runs: finding them, showing their state, stopping and cancelling them."""
