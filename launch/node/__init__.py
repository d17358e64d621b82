"""What runs once on each node of a run: it meets the other nodes, runs torchrun, and restarts it in place."""
