"""Forked worker processes on every version of Python: `multiprocessing_context=FORK`.

Python 3.14 uses a fork server by default, which imports everything again and pickles the dataset. Since 3.12 Python
warns when a process with threads forks, because a lock that another thread holds stays locked in the child. The threads
here are those of torch and OpenBLAS, which use one thread in a worker (`torch.utils.data._utils.worker`) or start new
ones there, so the warning is suppressed.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.util import get_temp_dir
from typing import Any

WARNING = "This process .* is multi-threaded"
"""The start of Python's warning (`warn_about_fork_with_threads` in Modules/posixmodule.c); seen in 3.12 and 3.13."""


SOCKET_BYTES = 107 - len("/pymp-12345678/listener-12345678")
"""The longest TMPDIR in whose folders multiprocessing can open its sockets: their paths have 107 bytes at most. Without
a socket, a worker cannot hand over a tensor, and its rank would wait for it."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders for the sockets, if TMPDIR is longer. They hold nothing else."""


def keep_socket_paths_short() -> None:
    """Has multiprocessing open the sockets of this process, and of its workers, in a folder with a short path."""
    before = tempfile.gettempdir()
    if len(os.fsencode(before)) > SOCKET_BYTES:
        tempfile.tempdir = next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), before)
        try:
            get_temp_dir()  # makes the folder once, and workers inherit it
        finally:
            tempfile.tempdir = before


class _Process(ForkProcess):
    def __init__(self, *args: Any, **options: Any) -> None:
        keep_socket_paths_short()
        super().__init__(*args, **options)

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", WARNING, DeprecationWarning)
            super().start()


class _Context(ForkContext):
    Process = _Process


FORK = _Context()
