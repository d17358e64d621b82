"""The commands that need torch or the data. Each is a separate program."""
