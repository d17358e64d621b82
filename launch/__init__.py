"""The login node: plans a run, starts it, follows it. Never imports torch."""
