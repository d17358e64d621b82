"""Rehearses what only several ranks do: gradients are averaged, and the results of an evaluation gathered.

The second of two ranks is a fork of this process. Both compute on one thread of the CPU, so NCCL and a GPU are not
tried, and what a third rank would do differently is not seen.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from drumbeat.data.fork import FORK
from drumbeat.data.loader import one_thread
from drumbeat.trainers.commands.smoke_test import error_place, error_text
from drumbeat.trainers.world import World

SECONDS = 60.0
"""How long a rank waits for the other one. They compute the same, on a busy machine not at the same time."""

NO_ANSWER = re.compile(r"Timed out|timeout|does not answer")
"""In the errors of a rank for which the other one does not come."""
OTHER_RANK = re.compile(rf"Connection (closed|reset)|Broken pipe|{NO_ANSWER.pattern}")
"""In the errors of a rank when the other one has failed."""


def on_two_ranks(compute: Callable[[World], None]) -> tuple[str, str] | None:
    """Calls `compute` on two ranks. Returns the error of the rank that failed first, and where it was raised; None if
    both succeed. Raises `OSError` or `RuntimeError` if the ranks cannot be connected."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting")
        receiver, sender = FORK.Pipe(duplex=False)
        second = FORK.Process(target=_second, args=(compute, meeting, sender), daemon=True)
        second.start()
        sender.close()
        try:
            mine = _rank(compute, meeting, 0)
            theirs = receiver.recv() if receiver.poll(SECONDS) else ("the second rank does not answer", "")
        except EOFError:
            theirs = ("the second rank was killed", "")
        finally:
            second.kill()
            second.join()
            receiver.close()
    if mine and theirs and OTHER_RANK.search(mine[0]) and not OTHER_RANK.search(theirs[0]):
        return theirs
    return mine or theirs


def _second(compute: Callable[[World], None], meeting: Path, sender: Connection) -> None:
    with one_thread():
        sender.send(_rank(compute, meeting, 1))


def _rank(compute: Callable[[World], None], meeting: Path, rank: int) -> tuple[str, str] | None:
    """Joins, computes and leaves. Returns the error and its place."""
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "lo")  # the name of this machine may not resolve
    with patch.dict(os.environ, GLOO_SOCKET_IFNAME=interface):
        store = dist.FileStore(str(meeting), 2)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=SECONDS))
        try:
            compute(World(rank=rank, local_rank=rank, size=2, device=torch.device("cpu")))
            return None
        except Exception as error:
            return error_text(error), error_place(error)
        finally:
            dist.destroy_process_group()
