"""Small file systems that tests fill or make read-only."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of 24 MB with 400 inodes in a new folder. Skips the test if this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=400", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount file systems")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, resource: str) -> None:
    """Uses up the bytes or the inodes of a file system."""
    folder.mkdir()
    try:
        with open(folder / "bytes", "wb", buffering=0) as file:
            while resource == "bytes":
                file.write(bytes(4096))
        for number in range(10**6):
            (folder / str(number)).touch()
    except OSError as error:
        assert error.errno == errno.ENOSPC


def break_disk(disk: Path, how: str) -> None:
    """Uses up the "bytes" or the "inodes" of a mounted file system, or makes it "read-only"."""
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    else:
        fill(disk / "filled", how)
