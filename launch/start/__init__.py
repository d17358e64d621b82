"""Starting a run: what the command line asks for, the checks before it, and the submission."""
