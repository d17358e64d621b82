"""Comparing runs: what differs between them, and whether one is better than another."""
