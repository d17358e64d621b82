"""Samples and their order: what a run reads, and who reads which sample when."""
