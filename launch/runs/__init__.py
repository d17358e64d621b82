"""Runs that exist: finding them, showing how they are, and acting on them."""
