"""Worker processes are forked on every version of Python, without a warning, also from a process with threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


@pytest.mark.parametrize("length", [40, 75, 76, 110, 200])
def test_workers_hand_over_tensors_wherever_tmpdir_is(length: int) -> None:
    """The paths of sockets have 107 bytes at most, and multiprocessing has its own below TMPDIR."""
    code = ("from torch.utils.data import DataLoader; import torch; from drumbeat.data.fork import FORK\n"
            "import tempfile\n"
            "sets = [torch.full((3, 1000), float(n)) for n in range(4)]\n"
            "loader = DataLoader(sets, batch_size=None, num_workers=2, multiprocessing_context=FORK, timeout=30)\n"
            "print([int(tensor.mean()) for tensor in loader], tempfile.gettempdir())")
    folder = Path("/dev/shm") / "x".join(["", *[str(os.getpid())] * 40])[:length - len("/dev/shm/")]
    folder.mkdir()
    try:
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)},
                              capture_output=True, text=True, timeout=120, check=False)
        assert len(str(folder)) == length
        assert done.stdout == f"[0, 1, 2, 3] {folder}\n", done.stderr
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
