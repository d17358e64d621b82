"""A disk that is really full: the run says that it is paused, goes on when there is room, and nothing is lost."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.trainers.report.events import read_events
from tests.processes import until, wait_for_file
from tests.tiny import latest, write_config

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB with 400 inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=400", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount file systems")
    yield folder
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


@pytest.mark.parametrize("resource", ["bytes", "inodes"])
def test_a_full_disk_pauses_the_run_and_loses_nothing(tmp_path: Path, disk: Path, undisturbed: RunDir,
                                                      resource: str) -> None:
    command = [sys.executable, str(ROOT / "launch" / "run.py"), str(write_config(tmp_path)), "--procs", "2", "--runs",
               str(disk / "runs"), "--no-preflight", "--no-snapshot", "task._target_=tests.tiny.Fuse",
               f"task.folder={tmp_path}", "task.at=[13]", "task.how=wait"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_file(tmp_path / "blown-0", process)
    run = latest(disk)
    fill(disk / "filled", resource)
    (tmp_path / "go").touch()
    until(lambda: View.read(run).state == "paused")
    assert "cannot be written" in View.read(run).verdict
    subprocess.run(["rm", "-r", str(disk / "filled")], check=True)
    assert process.wait(120) == 0
    assert Result.require(run.result) == Result.require(undisturbed.result)
    assert len(run.all_attempts()) == 1
    before, after = (read_events(folder).curves for folder in (undisturbed.tensorboard, run.tensorboard))
    for name in ("train/loss", "train/lr", "validation/loss"):
        assert after[name] == before[name]


def test_a_full_dev_shm_is_named(tmp_path: Path) -> None:
    """There is no room for a semaphore, so torchrun itself fails; its message is that of a full disk."""
    full = ("mount -t tmpfs -o size=64k tmpfs /dev/shm && yes > /dev/shm/full; test -s /dev/shm/full || exit 77; "
            "exec \"$@\"")
    command = [sys.executable, str(ROOT / "launch" / "run.py"), str(write_config(tmp_path)), "--procs", "2",
               "--no-preflight", "--no-snapshot", "launch.restarts=0"]
    done = subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", full, "sh", *command], cwd=tmp_path,
                          text=True, capture_output=True, check=False)
    if done.returncode == 77:
        pytest.skip("this machine allows no mount namespaces")
    assert done.returncode == 1
    assert "ended with code 1: it ran out of shared memory (/dev/shm is full): OSError: [Errno 28]" in (
        View.read(latest(tmp_path)).verdict)
