"""What submitit calls on each node."""

from __future__ import annotations

import importlib


def run_node(run_dir: str) -> None:
    """Runs the node launcher on a run's folder. submitit pickles this function by its name and nothing else, so nothing
    can be out of date after a requeue. The launcher is named and not imported, like the worker: it is a program that
    the backends start, and it imports them."""
    importlib.import_module("drumbeat.launch.node.node").Node(run_dir)()
