"""Worker processes that are forked, on every version of Python: `multiprocessing_context=FORK`.

Python 3.14 starts worker processes by a fork server unless told otherwise, which imports everything again and pickles
the data set. Since 3.12 Python warns where a process with threads is forked, because a lock that another thread holds
stays locked in the child. The threads here are those of torch and OpenBLAS, which compute with one thread in a worker
(`torch.utils.data._utils.worker`) or start new ones there, so the warning is not shown.
"""

from __future__ import annotations

import warnings
from multiprocessing.context import ForkContext, ForkProcess

WARNING = "This process .* is multi-threaded"
"""How Python's warning begins (`warn_about_fork_with_threads` in Modules/posixmodule.c); seen in 3.12 and 3.13."""


class _Process(ForkProcess):
    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", WARNING, DeprecationWarning)
            super().start()


class _Context(ForkContext):
    Process = _Process


FORK = _Context()
