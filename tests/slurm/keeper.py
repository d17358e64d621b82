"""The keeper of a test cluster: it starts the daemons, and removes everything that the cluster left on the machine.

It is a process of its own, started by `tests.slurm.cluster`, because only then nothing is left whatever happens to the
test: being a subreaper, it stays the ancestor of every process below the daemons, whatever sessions, groups or
environments they make for themselves; and when the test process dies, even by SIGKILL, the closed pipe tells it.

It is told what to do on its standard input: one `Daemon` a line, then an empty line or the end of the file, which mean
"end it all". Standard library only, so that it starts in some 30 ms.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
HOSTS = Path("/etc/hosts")
JOBS_PER_CLUSTER = 1000
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Daemon:
    """One program to start and watch."""

    name: str
    argv: list[str]
    log: str
    """The file for its standard output and error."""
    user: str | None = None
    """The user that it runs as; None: this process's user."""


@dataclass(frozen=True)
class Traces:
    """What a cluster leaves on a machine besides processes."""

    scratch: str
    """Folder with the sockets, the keys and the daemons' state. `<daemon>.exit` appears in it when a daemon ends."""
    database: str | None
    """Folder of the database, if there is one."""
    hosts: dict[str, str]
    """Node name to address."""
    first_job: int
    """The first of this cluster's `JOBS_PER_CLUSTER` job ids; cgroup folders of other jobs are kept."""


def send(message: Daemon | Traces) -> str:
    """The message as one line of JSON."""
    return json.dumps(asdict(message)) + "\n"


def keep(traces: Traces) -> list[int]:
    """Starts the requested daemons until the input ends. Returns the processes that cannot be ended, usually none."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with host_names(traces.hosts, tag=f"test cluster {traces.scratch}"):
            _run_daemons(Path(traces.scratch))
    finally:
        nodes = list(traces.hosts)
        left = _end_processes(nodes)
        for root in cgroup_roots(nodes):
            remove_cgroups(root, range(traces.first_job, traces.first_job + JOBS_PER_CLUSTER))
        for folder in filter(None, (traces.database, traces.scratch)):  # the scratch folder claims the names
            shutil.rmtree(folder, ignore_errors=True)
    return left


def _run_daemons(scratch: Path) -> None:
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}  # kept, because a deleted Popen reaps its process
    for line in _lines(sys.stdin.fileno()):
        for pid, code in _reaped():
            if pid in running:
                (scratch / f"{running.pop(pid)[0]}.exit").write_text(f"{code}\n")
        if line is not None:
            daemon = Daemon(**json.loads(line))
            process = _start(daemon)
            running[process.pid] = daemon.name, process


def _lines(source: int) -> Iterator[str | None]:
    """The lines of the input until an empty one or the end; None ten times a second in between."""
    pending = b""
    while True:
        yield None
        if not select.select([source], [], [], 0.1)[0]:
            continue
        chunk = os.read(source, 65536)
        *complete, pending = (pending + chunk).split(b"\n")
        for line in complete:
            if not line:
                return
            yield line.decode()
        if not chunk:
            return


def _start(daemon: Daemon) -> subprocess.Popen[bytes]:
    # A small environment, so that no SLURM_* or SBATCH_* variable of this process reaches the jobs.
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    user = pwd.getpwnam(daemon.user) if daemon.user else None
    with open(daemon.log, "ab") as log:
        return subprocess.Popen(
            daemon.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            cwd="/",
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )


def _reaped() -> Iterator[tuple[int, int]]:
    """Children that ended, including orphans of the daemons, with their exit codes."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def descendants(ancestor: int) -> set[int]:
    """All living processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    unseen = [ancestor]
    while unseen:
        below = children.get(unseen.pop(), [])
        found.update(below)
        unseen += below
    return found


def _end_processes(nodes: list[str], patience: float = 15.0) -> list[int]:
    """Kills all descendants until none is left: a test cluster has nothing to save."""
    deadline = time.monotonic() + patience
    while not _childless() and time.monotonic() < deadline:
        for root in cgroup_roots(nodes):
            _thaw(root)
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        list(_reaped())
    return sorted(descendants(os.getpid()))


def _childless() -> bool:
    """Whether all children have been reaped. One with many threads is a zombie for a while before it can be."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def cgroup_roots(nodes: list[str]) -> list[Path]:
    """The cgroup folders in which SLURM keeps the jobs of these nodes, under cgroup v1 and under v2."""
    patterns = ("*/slurm_{}", "*/{}_slurmstepd.scope", "*/*/{}_slurmstepd.scope")
    return [root for node in nodes for pattern in patterns for root in CGROUPS.glob(pattern.format(node))]


def _thaw(root: Path) -> None:
    """A slurmstepd that was killed between freezing its tasks and killing them leaves them frozen, so that SIGKILL
    does not end them. Folders of other clusters may be removed meanwhile."""
    for folder, _, files in os.walk(root):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if name in files:
                with suppress(OSError):
                    Path(folder, name).write_text(value)


def remove_cgroups(root: Path, jobs: range) -> None:
    """Remove the folders of these jobs and, if no other cluster's job is in them, the folders they were in.

    SLURM itself locks the folder above while it makes and removes them, and makes again what it finds missing.
    """
    with _locked(root.parent):
        for folder in sorted((Path(folder) for folder, _, _ in os.walk(root)), reverse=True):
            numbers = [int(part[4:]) for part in folder.parts if part.startswith("job_") and part[4:].isdigit()]
            if not numbers or numbers[0] in jobs:
                with suppress(OSError):  # Not empty: another cluster is using it.
                    folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def host_names(hosts: dict[str, str], tag: str) -> Iterator[None]:
    """Make node names resolve, unless the machine resolves them already; the added lines have a tag.

    Each cluster adds and removes only its own lines, so clusters may overlap. The file is written in place and not
    replaced, since containers mount it by itself.
    """
    lines = HOSTS.read_text().splitlines()
    others = {name for line in lines if "# test cluster" not in line for name in line.partition("#")[0].split()[1:]}
    ours = [f"{address} {name} # {tag}" for name, address in hosts.items() if name not in others]
    _edit_hosts(lambda lines: lines + ours)
    try:
        yield
    finally:
        _edit_hosts(lambda lines: [line for line in lines if not line.endswith(f"# {tag}")])


def _edit_hosts(edited: Callable[[list[str]], list[str]]) -> None:
    with HOSTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = edited(file.read().splitlines())
        file.seek(0)
        file.write("".join(line + "\n" for line in lines))
        file.truncate()


if __name__ == "__main__":
    if left := keep(Traces(**json.loads(sys.argv[1]))):
        sys.exit(f"these processes could not be ended: {left}")
