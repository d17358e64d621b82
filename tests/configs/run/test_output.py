"""Prints of a process whose log's disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.output import Lossy


def test_what_the_disk_does_not_take_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream = Lossy(handle)
    stream.write(b"one\n")
    with monkeypatch.context() as patch:
        def full(handle: int, content: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "write", full)
        assert stream.write(b"two\n") == 4
        assert stream.write(b"three\n") == 6
    stream.write(b"four\n")
    stream.write(b"five\n")
    os.close(handle)
    assert log.read_text() == "one\n[10 bytes of this log are lost: the disk was full or gone]\nfour\nfive\n"


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="this system has no /dev/full")
def test_a_print_to_a_full_disk_does_not_end_the_process() -> None:
    code = "from drumbeat.configs.run.output import outlive_the_log; outlive_the_log(); print('hello', flush=True)"
    with open("/dev/full", "wb") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, check=False).returncode == 0
        assert subprocess.run([sys.executable, "-c", "print('hello', flush=True)"], stdout=full,
                              stderr=subprocess.DEVNULL, check=False).returncode != 0
