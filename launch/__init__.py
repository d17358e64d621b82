"""The launcher: plans a run, starts it and shows it. Never imports torch."""
