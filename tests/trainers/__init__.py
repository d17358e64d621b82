"""Tests of the compute node."""
