"""One attempt of a run: its processes, and the verdict on how it ended."""
