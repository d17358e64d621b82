"""The function that submitit calls on each node; tests/launch/node/test_node.py submits it."""

from __future__ import annotations

import pickle

import cloudpickle

from drumbeat.launch.backends.task import run_node


def test_submitit_keeps_its_name_and_none_of_its_code() -> None:
    """So that a job that SLURM starts again calls the function of the run's own copy of the code."""
    pickled = cloudpickle.dumps((run_node, "/runs/x"))
    assert pickle.loads(pickled) == (run_node, "/runs/x")
    assert b"drumbeat.launch.backends.task" in pickled
    assert b"importlib" not in pickled
    assert b"drumbeat.launch.node" not in pickled
