"""Processes beside a run: one for each of its trackers, and one that sends its notifications.

They are no descendants of the launcher, which kills all of its own at the end of an attempt, and none of the run's
processes: they do not keep it running, and `cancel` does not wait for them. They live for all attempts of a job on its
first node, and end when they have sent the rest: their standard input ends with the launcher, however that ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Status

FORWARD = "drumbeat.trainers.trackers.forward"
NOTIFY = "drumbeat.launch.runs.notify"
WAIT_SECONDS = 30.0
"""How long a job on SLURM waits at its end until they have sent the rest: they end with it."""
NICENESS = 10
"""They leave the cores to the training."""
UNAFFECTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT,
              signal.SIGTSTP)
"""Signals to the job or the terminal, which are for the launcher."""
DETACHED = '"$@" <&3 3<&- &'
"""A shell's command: it starts a process whose parent, the shell, is gone at once. Job control gives it no input of its
own, so it takes file 3."""


@contextmanager
def beside(run: RunDir, plan: JobPlan, *, wait: bool) -> Iterator[None]:
    """The processes beside the run, from now on. At the end they are told that the run is over, and with `wait` this
    waits until they have ended, but not for long; a process that exits in another way does not wait. Nothing that
    concerns them raises."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            try:
                for command, log in commands(run, plan):
                    log.parent.mkdir(exist_ok=True)
                    detach(command, log, theirs.fileno(), folder=plan.folder, environment=plan.environment)
            except (OSError, RunError) as error:
                print(f"warning: trackers and notifications cannot be started: {error}", flush=True)
        try:
            yield
        finally:
            ours.shutdown(socket.SHUT_WR)
            if wait:
                ours.settimeout(WAIT_SECONDS)
                with suppress(OSError):
                    ours.recv(1)  # returns when the last of them has ended


def commands(run: RunDir, plan: JobPlan) -> Iterator[tuple[list[str], Path]]:
    """The command of each process, and its log."""
    for name in plan.trackers:
        yield ([plan.python, "-m", "drumbeat.configs.importing", FORWARD, str(run.path), name],
               run.tracker(name).with_suffix(".log"))
    if plan.notify:
        status = Status.read(run.status)
        waiting = status is not None and status.state in ("pending", "preempted")
        yield ([plan.python, "-m", NOTIFY, str(run.path), str(status.time if status and waiting else 0.0)],
               run.notifications / "log")


def detach(command: Sequence[str], log: Path, stdin: int = subprocess.DEVNULL, *, folder: str | None = None,
           environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Starts a process that belongs to nobody and writes to `log`, with these variables besides. Raises `OSError`."""
    def before_exec() -> None:
        for number in UNAFFECTED:
            signal.signal(number, signal.SIG_IGN)
        os.nice(NICENESS)

    with open(log, "ab") as output:
        subprocess.run(["/bin/sh", "-c", f"exec 3<&0; {DETACHED}", "sh", *command], stdin=stdin, stdout=output,
                       stderr=output, env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": ""}, cwd=folder,
                       start_new_session=True, preexec_fn=before_exec, check=False)
