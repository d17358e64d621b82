"""Functions of the tests on several ranks, without a launcher: processes that have joined by gloo."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drumbeat.launch.node.rendezvous import free_port
from tests.warm import run_python

START = "import sys, tests.ranks; tests.ranks.fork(*sys.argv[1:])"


def on_ranks(ranks: int, function: Callable[..., None], *words: object) -> None:
    """Calls a module's function with the world and these arguments, as texts, on several ranks; fails if one fails."""
    command = [sys.executable, "-c", START, str(ranks), function.__module__, function.__name__, *map(str, words)]
    done = run_python(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def fork(ranks: str, module: str, name: str, *words: str) -> None:
    """Imports the function, and then forks the ranks."""
    from torch.multiprocessing import start_processes

    function = getattr(importlib.import_module(module), name)
    start_processes(_rank, (int(ranks), free_port(), function, words), int(ranks), start_method="fork")


def _rank(rank: int, ranks: int, port: int, function: Callable[..., Any], words: Sequence[str]) -> None:
    import torch

    from drumbeat.trainers.world import join

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with join("cpu") as world:
        function(world, *words)
