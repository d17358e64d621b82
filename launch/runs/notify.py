"""Reports the events of a run to people, beside it.

    python -m drumbeat.launch.runs.notify RUN QUEUED
    python -m drumbeat.launch.runs.notify RUN seen [RUN ...]

The launcher starts one such process (`launch/attempts/beside.py`), whose standard input ends when the launcher does;
and a command that sees events first starts one that reports them and ends (`seen`). `QUEUED` is when a run that is
starting was put into the queue. It waits for nobody for long: an address that does not answer is tried a few times.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import RunError
from drumbeat.configs.load import read
from drumbeat.configs.operation import Notify
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.output import outlive_the_log
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.notices import SEEN, WAITING, Notice, claim, notices
from drumbeat.launch.runs.status import status_text, unrecorded_end

POLL_SECONDS = 2.0
"""Between two looks at the run."""
PAUSES = (1.0, 5.0, 15.0)
"""Seconds before an address that did not accept the text is tried again."""
COMMAND_SECONDS = 60.0
"""The longest time for `notify.command`."""
LAST_SECONDS = 180
"""From the end of the launcher, or from the start if a command has seen something, until this process ends, whatever it
is doing: the kernel sees to that."""


def watch(run: RunDir, queued: float, is_gone: Callable[[], bool], *, seen: bool = False) -> None:
    """Reports each event until the run has ended or waits again. `is_gone` waits for a moment, and says whether the
    launcher is gone: then the run has ended, even if that is not recorded. If a command has `seen` an event, this looks
    once, and executes nothing of the run."""
    while True:
        gone = is_gone()
        view = View.read(run)
        if gone and (end := unrecorded_end(view)):
            view = replace(view, status=end)
        notify = read(run.config).notify
        notify = replace(notify, command="") if seen else notify
        for notice in notices(view, notify, queued):
            if claim(run, notice):
                deliver(view, notice, notify)
        if seen or view.ended or (gone and view.state in WAITING):
            return


def deliver(view: View, notice: Notice, notify: Notify) -> None:
    """Sends the text to each address, and runs the command. What fails is a line in the log, without the address."""
    text = status_text(view)
    for name in notify.to:
        outcome = "has accepted it" if any(_sent(os.environ.get(name, ""), notice.title, text, pause)
                                   for pause in (0.0, *PAUSES)) else "has not accepted it"
        _log(f"{notice.key}: {name} {outcome}")
    if notify.command:
        message = {"DRUMBEAT_EVENT": notice.event, "DRUMBEAT_RUN": str(view.run.path), "DRUMBEAT_TITLE": notice.title,
                   "DRUMBEAT_TEXT": text}
        _log(f"{notice.key}: the command {_outcome(notify.command, message)}")


def _outcome(command: str, message: Mapping[str, str]) -> str:
    """Runs a command of the shell, with these environment variables. Returns how it has ended; what it has started
    does not outlive its time."""
    try:
        with subprocess.Popen(["/bin/sh", "-c", command], env=os.environ | message, stdin=subprocess.DEVNULL,
                              start_new_session=True) as process:
            try:
                return f"ended with exit code {process.wait(COMMAND_SECONDS)}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return f"was killed after {COMMAND_SECONDS:g} s"
    except OSError as error:
        return f"failed: {error.strerror}"


def _sent(address: str, title: str, text: str, pause: float) -> bool:
    """Whether an address has accepted the text, after a pause."""
    time.sleep(pause)
    with suppress(Exception):  # of any of Apprise's hundred services
        import apprise

        service = apprise.Apprise()
        return bool(service.add(address) and service.notify(title=title, body=text))
    return False


def _log(text: str) -> None:
    print(f"{time.strftime('%F %T')} {text}", flush=True)


def main() -> None:
    """Watches a run until standard input ends."""
    gone = False

    def is_gone() -> bool:
        nonlocal gone
        if gone:
            time.sleep(POLL_SECONDS)
        elif select.select([0], [], [], POLL_SECONDS)[0] and not os.read(0, 1):
            gone = True
            signal.alarm(LAST_SECONDS)
        return gone

    outlive_the_log()
    logging.disable()  # Apprise would write addresses to the log
    run, since, *more = sys.argv[1:]
    seen = since == SEEN
    if seen:
        signal.alarm(LAST_SECONDS)
    for one in (run, *more):
        with suppress(RunError):  # a damaged file
            watch(RunDir(Path(one)), 0.0 if seen else float(since), (lambda: True) if seen else is_gone, seen=seen)


if __name__ == "__main__":
    main()
