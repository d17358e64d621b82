"""Starting a run: from the command line to a plan, the checks before the start, and the submission."""
