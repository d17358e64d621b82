"""The events of a run that are reported: which there are, and that each is reported once.

An event has a key, and a file of this name in the run's folder, which only one process can create: so an event is
reported once, however many processes and commands see it, and also after requeues.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs import importing
from drumbeat.configs.errors import UserError
from drumbeat.configs.load import read
from drumbeat.configs.operation import Notify
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import State
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import clock
from drumbeat.launch.attempts.beside import NOTIFY, detach

WAITING: tuple[State, ...] = ("pending", "preempted")
"""The states of a run that is in the queue, or not started yet."""

MOST = 1000
"""The largest number of runs that a command reports; the next command reports the others."""

SEEN = "seen"
"""The argument of the process for what a command has seen."""


@dataclass(frozen=True)
class Notice:
    """An event that is reported."""

    event: str
    """One of `configs.notifications.EVENTS`."""
    key: str
    """The same for the same event, whoever sees it."""
    title: str


def notices(view: View, notify: Notify, queued: float = 0.0) -> Iterator[Notice]:
    """The events that the run's state stands for. `queued` is when a run that has been started since was put into the
    queue, in seconds since 1970; 0 if it was not."""
    name, job = view.run.path.parent.name, f"{view.job.time:.0f}" if view.job else ""
    since = view.status.time if view.status and view.state in WAITING else queued
    hours = (time.time() - since) / 3600 if since else 0.0
    if "waiting" in notify.on and hours > notify.waiting_hours:
        still = "is waiting" if view.state in WAITING else "has started after waiting"
        yield Notice("waiting", f"waiting-{since:.0f}", f"{name} {still} for {clock(hours * 3600)} in the queue")
    if view.state == "paused" and "paused" in notify.on:
        yield Notice("paused", f"paused-{view.heartbeat.step if view.heartbeat else 0}", f"{name} is paused")
    if view.state in ("finished", "failed") and view.state in notify.on:
        yield Notice(view.state, f"{view.state}-{view.number}-{job}", f"{name} has {view.state}")


def claim(run: RunDir, notice: Notice) -> bool:
    """Whether this process is the one that reports the event."""
    try:
        run.notifications.mkdir(exist_ok=True)
        if run.notifications.is_symlink():  # in a copy of a run, to any place
            return False
        os.close(os.open(run.notifications / notice.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError:
        return False
    return True


def report(*views: View) -> None:
    """Starts the process that reports what a command has seen first: that runs were killed with their launchers, or
    wait for long. Only for their owner, and if this shell has the addresses. Looking at a run executes nothing of it,
    so its `notify.command` does not run, and only its addresses get the message. It is one process for all `views`:
    `ls` may see that a thousand runs have ended."""
    if found := [str(view.run.path) for view in views if _is_news(view)][:MOST]:
        with suppress(OSError):
            detach([sys.executable, "-m", NOTIFY, found[0], SEEN, *found[1:]], Path(os.devnull),
                   environment=importing.environment(str(Path.cwd()), ()))


def _is_news(view: View) -> bool:
    """Whether there is something that this command may report, and nobody has."""
    run = view.run
    if not view.plan.notify or view.state not in ("finished", "failed", *WAITING):
        return False
    with suppress(UserError, OSError):
        notify = read(run.config).notify
        may = os.geteuid() == run.path.stat().st_uid and os.access(run.path, os.W_OK) and (
            not run.notifications.is_symlink())
        return may and bool(notify.to) and all(name in os.environ for name in notify.to) and any(
            not (run.notifications / notice.key).exists() for notice in notices(view, notify))
    return False
