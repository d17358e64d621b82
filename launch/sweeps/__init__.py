"""Sweeps: many runs of one config with different values, started, stopped, resumed and listed as one thing."""
