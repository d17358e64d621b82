"""A real SLURM cluster on this machine, for as long as a `with` block lasts.

    with Cluster(folder) as cluster:
        job_id = cluster.run("sbatch", "--parsable", "--wrap", "hostname").strip()
        cluster.wait(job_id, "COMPLETED")

Its nodes n1, n2 and n3 are one slurmd each. Their processors and GPUs are pretended; everything else is SLURM as a site
runs it. Jobs of partition `urgent` preempt the others: those of `main`, the default, are requeued after a GraceTime,
those of `requeue` and `wide` at once, and those of `cancel` are cancelled. All three nodes are in `wide` alone.

It has its own ports, munge and folders, so it runs beside the machine's own SLURM and beside others of its kind. With
`accounting=True`, user root has an account `root` and the QOS `normal`; sacctmgr makes more, and sacct knows the jobs.
A cluster `beside` another shares its accounting, so that each can be asked from the other by its name.
It needs root, and Debian's packages slurm-wlm and munge; for accounting also slurmdbd and mariadb-server-core.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.slurm import accounting, keeper
from tests.slurm.keeper import Daemon, Traces
from tests.slurm.layout import CPUS, NODES, Layout, Proctrack, claim_ports

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Daemons live where an ordinary user's PATH does not lead."""
_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "sinfo", "scontrol", "scancel")
PATIENCE = 120.0
"""Seconds to wait for what comes in one or two on a machine that has nothing else to do."""
RECOVERY = 60.0
"""Seconds until a cluster whose jobs have been cancelled has to be idle."""
_FINAL = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


class ClusterError(Exception):
    """The cluster did not come up, refused a command, or took a job another way; with what its daemons logged."""


def missing_programs(accounts: bool = False) -> list[str]:
    """What is missing for a cluster on this machine, as text for a skip reason; empty if nothing is."""
    programs = (*_PROGRAMS, *(accounting.PROGRAMS if accounts else ()))
    missing = [program for program in programs if shutil.which(program, path=_PATH) is None]
    if "munge" not in {user.pw_name for user in pwd.getpwall()}:
        missing.append("user munge")
    if os.geteuid() != 0:
        missing.append("root privileges")
    return missing


class Cluster:
    """Enter it once. Configuration and logs stay in `folder`; all else is removed on leaving, also after an error."""

    def __init__(self, folder: Path, *, proctrack: Proctrack = "cgroup", accounting: bool = False, nodes: int = NODES,
                 cpus: int = CPUS, name: str = "test", beside: Cluster | None = None) -> None:
        self.folder = folder.absolute()
        # The port and the folders Path() stands for are claimed on entering.
        self._layout = Layout(folder=self.folder, scratch=Path(), database=Path(), port=0, proctrack=proctrack,
                              accounting=accounting, nodes=nodes, cpus=cpus, name=name,
                              beside=beside._layout if beside else None)
        self._killed: set[str] = set()

    def __enter__(self) -> Cluster:
        if missing := missing_programs(self._layout.accounting):
            packages = "slurm-wlm munge" + " slurmdbd mariadb-server-core" * self._layout.accounting
            raise ClusterError(f"no {', '.join(missing)}. HINT: apt-get install {packages}, and run as root")
        self.folder.mkdir(parents=True, exist_ok=True)
        port, scratch = claim_ports()
        self._layout = replace(self._layout, port=port, scratch=scratch, database=accounting.database_folder(scratch))
        self._keeper = self._start_keeper()
        try:
            self._write_files()
            self._start_daemons()
        except BaseException:
            with suppress(ClusterError):  # What went wrong first is the news.
                self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    @property
    def environ(self) -> dict[str, str]:
        """What a command needs in order to talk to this cluster, to be merged into `os.environ`."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *argv: str, stdin: str = "", timeout: float = 60) -> str:
        """Run a client command, such as "squeue", "-h"; returns what it prints, raises if it fails."""
        done = self._client(*argv, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(argv)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def fill(self, partition: str = "main", command: str = "sleep 300") -> str:
        """Submits a batch job that takes two nodes whole; its id."""
        size = ("--partition", partition, "--nodes=2", "--exclusive", "--output=/dev/null", "--chdir=/")
        return self.run("sbatch", "--parsable", *size, "--wrap", command).strip()

    def state(self, job_id: int | str) -> str:
        """The job's state, asked of the controller and not of the accounting; it knows a job for five minutes."""
        found = re.search(r"JobState=(\w+)", self.run("scontrol", "--oneliner", "show", "job", str(job_id)))
        return found[1] if found else "UNKNOWN"

    def wait(self, job_id: int | str, states: str | Collection[str], timeout: float = PATIENCE) -> str:
        """Waits for one of the states and returns it. Raises `ClusterError` if none of them can be reached any more, or
        after `timeout` seconds."""
        expected = {states} if isinstance(states, str) else set(states)
        deadline = time.monotonic() + timeout
        while (state := self.state(job_id)) not in expected:
            if state in _FINAL or time.monotonic() > deadline:
                shown = [self.run("squeue"), self.run("scontrol", "show", "job", str(job_id)), self._tail("slurmctld")]
                raise ClusterError(
                    f"job {job_id} is {state}, waited {timeout} s for {' or '.join(sorted(expected))}\n"
                    + "\n".join(shown)
                )
            time.sleep(0.1)
        return state

    def start_again(self, job_id: int | str) -> None:
        """Let a job that is being requeued start in the next second, and not only when its credential has expired. In
        the same second its node would still take the new credential for the old, revoked one."""
        self.wait(job_id, "PENDING")
        self.run("scontrol", "update", f"jobid={job_id}", "starttime=now+1")

    def clear(self) -> None:
        """Starts the daemons that a test has killed, ends all jobs, and waits until all nodes are idle. Raises
        `ClusterError` if that times out."""
        for name in sorted(self._killed, reverse=True):  # slurmctld first: the others ask it
            self.start_daemon(name)
        self.run("scancel", "--user=root")
        self._await("all jobs to end", lambda: not self.run("squeue", "--noheader"), RECOVERY)
        self.await_nodes(RECOVERY)

    @contextmanager
    def reconfigured(self, **values: int | str) -> Iterator[None]:
        """With other values in slurm.conf, or more of them, for options that need no daemon to restart."""
        conf = self.folder / "slurm.conf"
        before = text = conf.read_text()
        for name, value in values.items():
            text, found = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
            text += "" if found else f"{name}={value}\n"
        try:
            self._reconfigure(text)
            yield
        finally:
            self._reconfigure(before)

    def _reconfigure(self, slurm_conf: str) -> None:
        draft = self.folder / "slurm.conf.new"  # replaced at once: a job's srun may read it at any moment
        draft.write_text(slurm_conf)
        draft.chmod(0o600)
        draft.replace(self.folder / "slurm.conf")
        self.run("scontrol", "reconfigure")

    def kill_daemon(self, name: str) -> None:
        """Ends slurmctld, or the slurmd of a node, by SIGKILL: the jobs and their slurmstepds stay."""
        self._killed.add(name)
        for pid, command in self.commands().items():
            if command[0].endswith(b"slurmctld") if name == "slurmctld" else (
                    command[0].endswith(b"slurmd") and command[1:4] == [b"-D", b"-N", name.encode()]):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while not self._note(name).exists():
            assert time.monotonic() < deadline, f"{name} does not end"
            time.sleep(0.02)

    def start_daemon(self, name: str) -> None:
        """Starts what `kill_daemon` has ended."""
        self._note(name).unlink(missing_ok=True)
        self._killed.discard(name)
        node = () if name == "slurmctld" else ("-N", name)
        self._start(name, "slurmd" if node else "slurmctld", "-D", *node, "-f", self.environ["SLURM_CONF"])

    def processes(self) -> set[int]:
        """All that runs in the cluster at this moment: daemons, slurmstepds, and the jobs with all they started."""
        return keeper.descendants(self._keeper.pid)

    def commands(self) -> dict[int, list[bytes]]:
        """The words of their command lines, without those of processes that end meanwhile."""
        found = {}
        for pid in self.processes():
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return found

    def _client(self, *argv: str, stdin: str = "", timeout: float) -> subprocess.CompletedProcess[str]:
        # Options of a job around us, or of the user, must not reach this cluster.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        environ = {**kept, "PATH": _PATH, **self.environ}
        return subprocess.run(argv, env=environ, input=stdin, capture_output=True, text=True, timeout=timeout)

    def _start_keeper(self) -> subprocess.Popen[str]:
        layout = self._layout
        database = str(layout.database) if layout.accounting and not layout.beside else None
        traces = Traces(scratch=str(layout.scratch), database=database, hosts=layout.hosts, first_job=layout.first_job)
        with open(self.folder / "keeper.log", "wb") as log:
            return subprocess.Popen(
                # Isolated, and in its own session: neither PYTHONPATH nor Ctrl-C should reach it.
                [sys.executable, "-I", keeper.__file__, keeper.send(traces)],
                env={**os.environ, "PATH": _PATH},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def _write_files(self) -> None:
        for name, text in self._layout.files().items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600)  # slurmdbd demands it of its own
        (self._layout.scratch / "state").mkdir()
        if self._layout.beside:
            return
        munge = self._layout.munge_socket.parent
        munge.mkdir(mode=0o755)
        key = munge / "key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        for path in (munge, key):
            shutil.chown(path, "munge", "munge")

    def _start_daemons(self) -> None:
        if not self._layout.beside:
            self._start_services()
        for name in ("slurmctld", *self._layout.hosts):
            self.start_daemon(name)
        self.await_nodes()

    def _start_services(self) -> None:
        """Starts what clusters can share."""
        munge = self._layout.munge_socket
        own = {"socket": munge, "key-file": munge.parent / "key", "log-file": munge.parent / "log"}
        own |= {"pid-file": munge.parent / "pid", "seed-file": munge.parent / "seed"}
        self._start("munged", "munged", "--foreground", *(f"--{name}={path}" for name, path in own.items()))
        self._await("munged to open its socket", munge.exists)
        if self._layout.accounting:
            self._start_accounting()

    def _start_accounting(self) -> None:
        database = self._layout.database
        self._start("mariadbd", *accounting.mariadbd(database))
        self._await("mariadbd to open its socket", (database / "socket").exists)
        self._start("slurmdbd", *accounting.slurmdbd(database, self.folder / "slurm.conf"))
        self._await("slurmdbd to answer", lambda: not self._client("sacctmgr", "show", "qos", timeout=30).returncode)

    def _start(self, name: str, *argv: str) -> None:
        user = "munge" if name == "munged" else None
        log = self.folder / f"{name}.out"
        log.unlink(missing_ok=True)
        assert self._keeper.stdin
        self._keeper.stdin.write(keeper.send(Daemon(name=name, argv=[*argv], log=str(log), user=user)))
        self._keeper.stdin.flush()

    def await_nodes(self, patience: float = PATIENCE) -> None:
        """Until all nodes wait for work: a controller that has just started does not know them yet."""
        self._await("all nodes to be idle", self._all_idle, patience)

    def _all_idle(self) -> bool:
        shown = self._client("sinfo", "-h", "-N", "-p", "wide", "-o", "%T", timeout=30)
        return shown.stdout.split() == ["idle"] * self._layout.nodes

    def _note(self, daemon: str) -> Path:
        """The file that the keeper makes when a daemon has ended."""
        return self._layout.scratch / f"{daemon}.exit"

    def _await(self, what: str, reached: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Raises `ClusterError` where that takes too long, or a daemon has ended."""
        deadline = time.monotonic() + patience
        while True:
            for note in self._layout.scratch.glob("*.exit"):
                raise ClusterError(f"{note.stem} ended with code {note.read_text()}{self._tail(note.stem)}")
            if self._keeper.poll() is not None:
                raise ClusterError(f"the keeper ended\n{self._tail('keeper')}")
            if reached():
                return
            if time.monotonic() > deadline:
                logs = [self._tail(name) for name in ("munged", "slurmctld", *self._layout.hosts)]
                raise ClusterError(f"waited {patience} s for {what}\n" + "\n".join(logs))
            time.sleep(0.05)

    def _tail(self, name: str, lines: int = 20) -> str:
        """The end of a log: the daemon's own where it has one, else what it printed."""
        for path in (self.folder / f"{name}.log", self.folder / f"{name}.out"):
            if path.exists() and (text := path.read_text(errors="replace")):
                return "\n".join([f"--- the end of {path}", *text.splitlines()[-lines:]])
        return f"--- {name} logged nothing"

    def _stop(self) -> None:
        self._keeper.communicate("\n", timeout=60)
        if code := self._keeper.returncode:
            raise ClusterError(f"the keeper ended with code {code}, something may be left\n{self._tail('keeper')}")
