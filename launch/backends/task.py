"""The function that submitit calls on each node."""

from __future__ import annotations

import importlib


def run_node(run_dir: str) -> None:
    """Runs the node launcher on a run's folder. submitit pickles only the name of this function, so nothing can be out
    of date after a requeue. The launcher is not imported at the top, because it imports the backends."""
    importlib.import_module("drumbeat.launch.node.node").Node(run_dir)()
