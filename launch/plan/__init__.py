"""The plan of a run, as values: its processes, its environment, and the copy of its code."""
