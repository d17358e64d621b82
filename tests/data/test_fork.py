"""Worker processes are forked on every version of Python, without a warning, also from a process with threads."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from torch.utils.data import DataLoader

from drumbeat.data.fork import FORK


class Parents:
    """A set whose samples are the process id of the parent of the process that reads them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return os.getppid()


@pytest.fixture
def thread() -> Iterator[None]:
    """A second thread of this process."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        yield
    finally:
        end.set()
        other.join()


@pytest.mark.usefixtures("thread")
def test_loader_workers_and_pools_are_forked_without_a_warning() -> None:
    """An object that cannot be pickled shows that the process was forked."""
    not_pickled = threading.Lock()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert list(DataLoader(Parents(), num_workers=1, batch_size=None, multiprocessing_context=FORK)) == [  # type: ignore[arg-type]
            os.getpid()] * 2
        child = FORK.Process(target=lambda: os._exit(7 if not_pickled.acquire() else 8))
        child.start()
        child.join()
        with ProcessPoolExecutor(1, mp_context=FORK) as pool:
            assert pool.submit(os.getppid).result() == os.getpid()
    assert child.exitcode == 7
    assert shown == []
