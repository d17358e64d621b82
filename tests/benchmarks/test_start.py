"""The benchmark of starts: how calls are counted and delayed. benchmarks/loop.py starts the same way."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.start import counted, row, tracer

LOG = """\
7  openat(AT_FDCWD, "/a", O_RDONLY|O_CLOEXEC) = 3
7  openat(AT_FDCWD, "/b", O_RDONLY) = -1 ENOENT (No such file or directory)
8  openat(AT_FDCWD, "/c", O_RDONLY <unfinished ...>
7  newfstatat(3, "", {st_mode=S_IFREG|0644, st_size=9, ...}, AT_EMPTY_PATH) = 0
8  <... openat resumed>)            = 4
8  getdents64(4, 0x55d0 /* 3 entries */, 32768) = 80
8  +++ exited with 0 +++
"""


def test_calls_and_opened_files_are_counted_once() -> None:
    assert counted(LOG) == (5, 2)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_calls_are_traced_and_delayed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = []
    for number, delay in enumerate((0.0, 20.0)):
        log, began = tmp_path / str(number), time.monotonic()
        done = subprocess.run([*tracer(log, delay), "cat", str(tmp_path / "file")], capture_output=True, text=True)
        if done.returncode and "ptrace" in done.stderr:
            pytest.skip("tracing is not allowed here")
        assert (done.stdout, done.stderr) == ("x", "")
        found.append((counted(log.read_text()), time.monotonic() - began))
    assert found[0][0] == found[1][0]
    assert found[0][0][1] >= 2  # a library, and the file
    assert found[1][1] >= 0.02 * found[1][0][0]


def test_a_ratio_above_one_is_better() -> None:
    assert row("calls", "calls", 46_000, 108_000).ratio == pytest.approx(2.348, abs=0.001)
