"""The processes of a run are found by their command lines, and no others; only they are killed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import LAUNCHERS, can_see_processes, end_processes, has_open, processes_of
from tests.processes import alive, until
from tests.runs import AS_ANOTHER, write_plan

WAIT = "import sys; print(flush=True); sys.stdin.read()"

Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a Python with arguments, which waits until the end of the test."""
    with ExitStack() as stack:
        def start(*words: str, program: str = WAIT) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", program, *words],
                                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout and process.stdout.readline()
            return process

        yield start


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    write_plan(run)
    return run


def test_processes_of_a_run_are_found_by_their_command_lines(run: RunDir, begin: Begin) -> None:
    view = View.read(run)
    launcher, rank = begin("submitit.core._submit", str(run.submitit)), begin("drumbeat.trainers.worker", str(run.path))
    begin("tensorboard", "--logdir", str(run.path))
    begin("drumbeat.trainers.worker", f"{run.path}2", "0")
    assert sorted(processes_of(view)) == sorted([launcher.pid, rank.pid])
    assert processes_of(view, LAUNCHERS) == [launcher.pid]
    assert running_evidence(view) in (f"process {launcher.pid}", f"process {rank.pid}")


def test_a_folder_through_another_path_is_the_same_run(run: RunDir, begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    rank = begin("drumbeat.trainers.worker", str(tmp_path / "link"))
    assert processes_of(View.read(run)) == [rank.pid]


def test_a_copied_or_moved_folder_has_no_processes(run: RunDir, begin: Begin, tmp_path: Path) -> None:
    """Its plan.json still names the folder of the original."""
    rank = begin("drumbeat.trainers.worker", str(run.path))
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    assert processes_of(View.read(copy)) == []
    assert processes_of(View.read(run)) == [rank.pid]
    moved = RunDir(run.path.rename(tmp_path / "moved"))
    assert processes_of(View.read(moved)) == []
    copy.path.rename(run.path)
    assert processes_of(View.read(run)) == [rank.pid], "which writes there now"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
def test_a_process_of_another_user_is_none_of_the_run(run: RunDir, begin: Begin) -> None:
    """It could keep the run from being resumed by naming its folder."""
    begin("drumbeat.trainers.worker", str(run.path), program=AS_ANOTHER.replace("sete", "set") + WAIT)
    assert processes_of(View.read(run)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace")
def test_in_a_container_the_same_path_is_another_folder(run: RunDir, begin: Begin, tmp_path: Path) -> None:
    """Here in a mount namespace with another folder over the run's."""
    (tmp_path / "other").mkdir()
    cover = ("import os, subprocess, sys; os.unshare(os.CLONE_NEWNS) if hasattr(os, 'unshare') else "
             "__import__('ctypes').CDLL(None).unshare(0x20000); "
             "subprocess.run(['mount', '--make-rprivate', '/'], check=True); "
             "subprocess.run(['mount', '--bind', sys.argv[2], sys.argv[1]], check=True); ")
    begin(str(run.path), str(tmp_path / "other"), "drumbeat.trainers.worker", program=cover + WAIT)
    assert processes_of(View.read(run)) == []


def test_ending_kills_descendants_too_and_nothing_else(run: RunDir, begin: Begin) -> None:
    child = ("import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); "
             "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", child, "drumbeat.trainers.worker", str(run.path)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as rank:
        assert rank.stdout
        below = int(rank.stdout.readline())
        other = begin("drumbeat.trainers.worker", f"{run.path}2")
        assert end_processes(partial(processes_of, View.read(run))) == []
        until(lambda: not alive(below))
        assert rank.wait() == -9
        assert other.poll() is None


def test_a_kernel_without_process_handles(run: RunDir, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.3, or in a container that does not allow them."""
    def pidfd_open(process: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    rank = begin("drumbeat.trainers.worker", str(run.path))
    assert end_processes(partial(processes_of, View.read(run))) == []
    assert rank.wait() == -9


def test_who_holds_a_folder_open(tmp_path: Path) -> None:
    assert not has_open(os.getpid(), tmp_path)
    handle = os.open(tmp_path, os.O_DIRECTORY)
    assert has_open(os.getpid(), tmp_path)
    os.close(handle)
    assert not has_open(2**22, tmp_path), "there is no such process"


def test_whose_processes_can_be_seen() -> None:
    """/proc is mounted without hidepid here."""
    assert can_see_processes(os.geteuid())
    assert can_see_processes(65534)
