"""The commands that need torch or the data, each a program of its own, and what they measure."""
