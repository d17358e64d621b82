"""Waiting for a disk that is full, read-only, slow or gone, in the processes of a run that must outlive that.

A command fails at once. A launcher or a rank says `wait_for_disk(seconds)` when it starts; from then on each record it
writes is tried again for so long.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

PASSING = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EIO,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO})
"""Errors that pass when somebody makes room, or a file server is back."""
SECONDS_BETWEEN_TRIES = 0.5

T = TypeVar("T")

_patience = 0.0


def wait_for_disk(seconds: float) -> None:
    """From now on `persist` waits for so long in this process, 0 for not at all."""
    global _patience
    _patience = seconds


def persist(write: Callable[[], T]) -> T:
    """The result of `write`, which is tried again while the disk does not take it. Raises its last `OSError` when this
    process's patience is over."""
    began = time.monotonic()
    said = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in PASSING or time.monotonic() - began >= _patience:
                raise
            if not said:
                said = True
                with suppress(OSError):  # the log may be on the same disk
                    print(f"waiting for the disk: {error}", file=sys.stderr, flush=True)
        time.sleep(SECONDS_BETWEEN_TRIES)
