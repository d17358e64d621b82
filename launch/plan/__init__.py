"""What a run needs, as values: its processes, its environment, and the copy of its code."""
