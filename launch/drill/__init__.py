"""Fault injection: what `drumbeat drill` does to a run, and how it is shown that nothing is lost."""
