"""Synthetic data in the files of well-known sets, to try the shipped configs without downloading anything."""
