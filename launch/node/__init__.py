"""What runs once on each node of a run: connects to the other nodes, runs torchrun, and restarts it in place."""
