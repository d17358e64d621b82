"""Waiting for a disk that is full, read-only, slow or unmounted, in the processes of a run.

Commands fail at once. Launchers and ranks call `wait_for_disk(seconds)` when they start; from then on they retry each
write of a record for this long.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

TEMPORARY = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EIO,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO})
"""Errors that end when somebody frees space, or when a file server is back."""
SECONDS_BETWEEN_TRIES = 0.5

T = TypeVar("T")

def print_reason(reason: str) -> None:
    """Prints why this process waits."""
    if reason:
        with suppress(OSError):  # the log may be on the same disk
            print(reason, file=sys.stderr, flush=True)


_retry_seconds = 0.0
_on_wait: Callable[[str], None] = print_reason


def wait_for_disk(seconds: float, on_wait: Callable[[str], None] = print_reason) -> None:
    """From now on `persist` retries for `seconds` in this process; 0 means no retries. `on_wait` is called with the
    reason when it begins to wait, and with '' when the disk is back."""
    global _retry_seconds, _on_wait
    _retry_seconds, _on_wait = seconds, on_wait


def persist(write: Callable[[], T]) -> T:
    """Calls `write`, and retries while it fails with one of the errors in `TEMPORARY`. Returns its result. Raises its
    last `OSError` when the time of `wait_for_disk` is over."""
    began = time.monotonic()
    reported = False
    while True:
        try:
            result = write()
            if reported:
                _on_wait("")
            return result
        except OSError as error:
            if error.errno not in TEMPORARY or time.monotonic() - began >= _retry_seconds:
                raise
            if not reported:
                reported = True
                _on_wait(f"waiting for the disk: {error}")
        time.sleep(SECONDS_BETWEEN_TRIES)
