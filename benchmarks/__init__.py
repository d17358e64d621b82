"""Speed as ratios: ours against named peers on the same work in one run. Each prints a table, or a list with --json."""
