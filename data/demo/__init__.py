"""Synthetic data in the file formats of well-known datasets, to try the shipped configs without downloads."""
