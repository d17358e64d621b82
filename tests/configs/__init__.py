"""Tests of the package `configs`."""
