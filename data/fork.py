"""Forked worker processes on every version of Python: `multiprocessing_context=FORK`.

Python 3.14 uses a fork server by default, which imports everything again and pickles the dataset. Since 3.12 Python
warns when a process with threads forks, because a lock that another thread holds stays locked in the child. The threads
here are those of torch and OpenBLAS, which use one thread in a worker (`torch.utils.data._utils.worker`) or start new
ones there, so the warning is suppressed.
"""

from __future__ import annotations

import warnings
from multiprocessing.context import ForkContext, ForkProcess

WARNING = "This process .* is multi-threaded"
"""The start of Python's warning (`warn_about_fork_with_threads` in Modules/posixmodule.c); seen in 3.12 and 3.13."""


class _Process(ForkProcess):
    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", WARNING, DeprecationWarning)
            super().start()


class _Context(ForkContext):
    Process = _Process


FORK = _Context()
