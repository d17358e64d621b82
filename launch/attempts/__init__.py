"""One attempt of a run: the processes it consists of, and the verdict on how it ended."""
