"""The lock of a run: one command at a time changes it, and whoever comes second learns who was first."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing, is_changing, lock_problem
from drumbeat.configs.run.records import Change
from tests.processes import until
from tests.runs import AS_ANOTHER, shared_folder

HOLD = """
import sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
with changing(RunDir(Path(sys.argv[1])), "resume"):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20260101-100000-aaaaa")
    run.path.mkdir()
    return run


@contextmanager
def held(run: RunDir) -> Iterator[subprocess.Popen[bytes]]:
    """Another process holds the lock until its standard input is closed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        yield process


def test_a_second_command_is_refused_and_learns_who_was_first(run: RunDir) -> None:
    with held(run) as process:
        assert is_changing(run)
        with pytest.raises(RunError) as error, changing(run, "resume"):
            pass
        assert f"given  drumbeat resume, process {process.pid} on {os.uname().nodename}\n" in str(error.value)
        process.kill()
        process.wait()
        assert not is_changing(run), "the kernel has freed it"
        with changing(run, "cancel"):
            assert Change.require(run.lock).command == "cancel"


def test_waiting_for_the_lock(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    got: list[str] = []

    def cancel() -> None:
        with changing(run, "cancel", wait=True):
            got.append(Change.require(run.lock).command)

    with held(run) as process:
        waiting = threading.Thread(target=cancel)
        waiting.start()
        until(lambda: sys.stderr.getvalue())  # type: ignore[attr-defined]
        assert got == []
        assert process.stdin
        process.stdin.close()
        waiting.join()
    assert got == ["cancel"]
    assert " ".join(sys.stderr.getvalue().split()).startswith(  # type: ignore[attr-defined]
        f"waiting for another command on this run: drumbeat resume, process {process.pid} on ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_only_the_owner_can_lock_a_run(capfd: pytest.CaptureFixture[str]) -> None:
    """Any reader could otherwise hold it for ever."""
    with shared_folder() as folder:
        run = RunDir(folder / "run")
        run.path.mkdir()
        with changing(run, "run"):
            pass
        assert run.lock.stat().st_mode & 0o777 == 0o600
        program = ("import sys\nfrom pathlib import Path\nimport encodings.idna\n"
                   "from drumbeat.configs.run.folder import RunDir\nfrom drumbeat.configs.run.lock import changing, "
                   f"is_changing\n{AS_ANOTHER}\nrun = RunDir(Path(sys.argv[1]))\nprint(is_changing(run))\n"
                   "with changing(run, 'cancel'): pass\n")
        done = subprocess.run([sys.executable, "-c", program, str(run.path)], capture_output=True, text=True,
                              check=False)
        assert done.stdout == "False\n"
        assert "you may not change this run" in done.stderr and "it belongs to root" in done.stderr


def test_whoever_may_write_to_the_folder_can_lock_the_run(run: RunDir) -> None:
    """A group that shares its runs."""
    run.path.chmod(0o2775)
    with changing(run, "run"):
        pass
    assert run.lock.stat().st_mode & 0o777 == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_makes_no_lock(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of an older version: it would be his, and lock the owner out."""
    os.chown(run.path, 65534, 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with changing(run, "stop"):
        assert not run.lock.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_lock_that_cannot_be_given_to_the_owner(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container of a user, where other users and groups do not exist."""
    def chown(*_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    os.chown(run.path, 65534, 65534)
    monkeypatch.setattr(os, "fchown", chown)
    with changing(run, "cancel"):
        assert is_changing(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_does_not_lock_the_owner_out(run: RunDir) -> None:
    os.chown(run.path, 65534, 65534)
    with changing(run, "cancel"):
        pass
    assert run.lock.stat().st_uid == 65534


def test_a_link_is_not_followed(run: RunDir, tmp_path: Path) -> None:
    theirs = tmp_path / "authorized_keys"
    theirs.write_text("key\n")
    run.lock.symlink_to(theirs)
    with pytest.raises(RunError, match="the run cannot be locked"), changing(run, "cancel"):
        pass
    assert theirs.read_text() == "key\n"


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_commands_still_work(run: RunDir, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    with changing(run, "cancel"):
        assert not is_changing(run)


@pytest.mark.parametrize(("mount", "note"), [
    ("nfs4 server:/home rw,vers=4.2,local_lock=none", ""),
    ("nfs server:/home rw,vers=3,nolock", "is on nfs, mounted with locks that hold on one machine only"),
    ("nfs4 server:/home rw,local_lock=all", "is on nfs4, mounted with locks that hold on one machine only"),
    ("lustre mds:/scratch rw,flock", ""),
    ("lustre mds:/scratch rw,localflock", "is on lustre, mounted with locks"),
    ("fuse.sshfs me@host: rw", "is on fuse.sshfs, mounted with locks"),
    ("ext4 /dev/sda1 rw", "")])
def test_file_systems_whose_locks_hold_on_one_machine_only(tmp_path: Path, mount: str, note: str) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"21 1 0:1 / /other rw - nfs x rw,nolock\n"
                      f"36 35 {os.major(device)}:{os.minor(device)} / /home rw,noatime shared:1 - {mount}\n")
    assert (note in lock_problem(tmp_path, mounts)) if note else lock_problem(tmp_path, mounts) == ""


def test_another_name_of_a_file_is_refused(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("key\n")
    run.lock.hardlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match="the run cannot be locked"), changing(run, "cancel"):
        pass
    assert (tmp_path / "theirs").read_text() == "key\n"
