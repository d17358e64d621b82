"""A disk that is really full: the run says that it is paused, goes on when there is room, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from drumbeat.trainers.report.events import read_events
from tests.disks import break_disk, fill, mounted
from tests.processes import names_of, until, wait_for_file
from tests.tiny import latest, write_config
from tests.trainers.saved_runs import IMAGES, draw_images, run_of
from tests.warm import run_python

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


@pytest.mark.parametrize(("resource", "at", "reason"), [
    ("bytes", 13, "cannot be written"), ("inodes", 13, "cannot be written"), ("bytes", 1, "waiting for the disk")])
def test_a_full_disk_pauses_the_run_and_loses_nothing(tmp_path: Path, disk: Path, undisturbed: RunDir,
                                                      resource: str, at: int, reason: str) -> None:
    """At a checkpoint, or before the first step."""
    command = [sys.executable, str(ROOT / "launch" / "run.py"), str(write_config(tmp_path)), "--procs", "2", "--runs",
               str(disk / "runs"), "--no-preflight", "--no-snapshot", "task._target_=tests.tiny.Fuse",
               f"task.folder={tmp_path}", f"task.at=[{at}]", "task.how=wait"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_file(tmp_path / "blown-0", process)
    run = latest(disk)
    fill(disk / "filled", resource)
    (tmp_path / "go").touch()
    until(lambda: View.read(run).state == "paused")
    assert reason in View.read(run).verdict
    subprocess.run(["rm", "-r", str(disk / "filled")], check=True)
    assert process.wait(120) == 0
    assert Result.require(run.result) == Result.require(undisturbed.result)
    assert len(run.all_attempts()) == 1
    before, after = (read_events(folder).curves for folder in (undisturbed.tensorboard, run.tensorboard))
    for name in ("train/loss", "train/lr", "validation/loss"):
        assert after[name] == before[name]


def test_a_disk_that_is_gone_pauses_the_run_and_loses_nothing(tmp_path: Path, disk: Path, undisturbed: RunDir) -> None:
    """An empty file system is mounted over it, as if a file server were away."""
    command = [sys.executable, str(ROOT / "launch" / "run.py"), str(write_config(tmp_path)), "--procs", "2", "--runs",
               str(disk / "runs"), "--no-preflight", "--no-snapshot", "task._target_=tests.tiny.Fuse",
               f"task.folder={tmp_path}", "task.at=[13]", "task.how=wait"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_file(tmp_path / "blown-0", process)
    run = latest(disk)
    ranks = [process for process, name in names_of(processes_of(View.read(run))).items() if name == "rank0"]
    log = Path(f"/proc/{ranks[0]}/fd/1")  # its path is hidden soon
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    (tmp_path / "go").touch()
    until(lambda: "paused     the checkpoint cannot be written: No such file or directory" in log.read_text())
    assert not list(disk.iterdir())
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert process.wait(120) == 0
    assert Result.require(run.result) == Result.require(undisturbed.result)
    assert len(run.all_attempts()) == 1


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


REASONS = {"bytes": "the disk is full", "inodes": "the disk has no inodes left: it holds as many files as it can",
           "read-only": "the disk is read-only"}


def files(folder: Path) -> list[Path]:
    """All files, without locks, which a disk without a free byte accepts."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock.json")


@pytest.mark.parametrize("how", REASONS)
def test_commands_report_a_disk_that_accepts_nothing(disk: Path, how: str) -> None:
    """In one screen, with the file; and what was there stays as it was."""
    draw_images(disk)
    run = run_of(disk, IMAGES)
    (disk / "old.csv").write_text("old\n")
    (disk / "old.png").write_text("old\n")
    break_disk(disk, how)
    before = files(disk)
    for words in (["export", run.path, disk / "w.pt"], ["export", run.path, disk / "w.safetensors"],
                  ["report", run.path, "--out", disk / "report.html"], ["evaluate", run.path],
                  ["predict", run.path, disk / "train", "--out", disk / "old.csv"],
                  ["stop", run.path], ["demo-data", "news", disk / "news"]):
        done = run_python([sys.executable, "-m", "drumbeat", *map(str, words)], cwd=disk.parent, text=True,
                          capture_output=True)
        text = " ".join(done.stderr.split())
        assert done.returncode == 2, f"{words}\n{done.stderr}"
        assert f"error: {REASONS[how]}" in text or (words[0] == "demo-data" and "cannot be written" in text), words
        assert f"where {disk}" in text, words
        assert done.stderr.count("\n") < 12, done.stderr
    assert files(disk) == before
    assert (disk / "old.csv").read_text() == (disk / "old.png").read_text() == "old\n"
