"""The compute node: one rank of a run, from joining the others to leaving them."""
