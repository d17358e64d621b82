"""Tests mirror the tree. This file keeps `tests/data` from being imported as `data`."""
