"""Computing steps of runs again: `drumbeat replay` and `drumbeat bisect`."""
