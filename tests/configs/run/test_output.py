"""Prints of a process whose log's disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.output import Lossy, limit_log


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


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_files_are_opened(tmp_path: Path, closed: str) -> None:
    code = ("import os, sys; from drumbeat.configs.run.output import open_standard_files; open_standard_files()\n"
            "print('out'); print('err', file=sys.stderr); sys.stdin.fileno(); sys.stdout.flush()\n"
            f"open({str(tmp_path / 'opened')!r}, 'w').write(str(os.open('/', os.O_RDONLY) > 2))")
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], capture_output=True,
                          check=False)
    assert (done.returncode, (tmp_path / "opened").read_text()) == (0, "True")
    assert done.stdout == (b"" if "1>" in closed else b"out\n")
    assert done.stderr == (b"" if "2>" in closed else b"err\n")


def test_a_log_does_not_grow_for_ever(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log, link = tmp_path / "log", tmp_path / "link"
    link.symlink_to(log)
    with open(log, "ab", buffering=0) as output:
        output.write(b"x" * 20)
        limit_log(log, 20)
        limit_log(link, 1)
        assert log.stat().st_size == 20
        assert capfd.readouterr().out == ""
        limit_log(log, 19)
        assert capfd.readouterr().out == "[this log had more than 19 bytes, which were removed]\n"
        output.write(b"y")
    assert log.read_bytes() == b"y"
    limit_log(tmp_path / "none")
