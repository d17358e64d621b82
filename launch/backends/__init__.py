"""Where a run can be: in this process, on this machine, in an allocation of the user's own, on a cluster."""
