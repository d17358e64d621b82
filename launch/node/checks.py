"""What each node checks before its ranks start, in every attempt: that it has what they need, which only the node
itself knows; and then the site's own check (`node_check` of the profile)."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drumbeat.configs.errors import Fault, LaunchError, PreflightError, UserError
from drumbeat.configs.importing import USER_PATH
from drumbeat.configs.load import read
from drumbeat.configs.preconditions import check_data, unreadable
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.records import NodeUp
from drumbeat.configs.terminal import visible
from drumbeat.launch.attempts.cause import exit_text
from drumbeat.launch.attempts.processes import child_setup
from drumbeat.launch.node.torchrun import BLOCKED_SIGNALS

CHECK_SECONDS = 5.0
"""Seconds that the site's check may take."""
FILES_SECONDS = 60.0
"""Seconds in which a file server must answer: an automounter may have to mount its folders first."""
POLL_SECONDS, KILL_SECONDS = 0.05, 1.0
TAIL_BYTES, LONGEST_LINE = 4096, 200
"""How much of the check's output is kept, and of its last line."""
REMEDY = "Use folders that all nodes see; or tell the administrators, if other nodes see them."
NOT_RUN = (126, 127)
"""Exit codes of a shell that could not run a command: not executable, not found."""


@dataclass(frozen=True)
class Finding:
    """Why a node cannot run its ranks."""

    kind: Literal["missing", "failed"]
    """See `NodeDown.check`."""
    message: str
    """In one line, with the node."""
    screen: str = ""
    """The same with all details, for the logs; '' if there are none."""


def check_node(run: RunDir, plan: JobPlan, attempt: Attempt, node: int, cancelled: Callable[[], bool]
               ) -> Finding | None:
    """Runs all checks on this node. Prints the first finding, also to the node's log, and returns it; None if the ranks
    can start, or if it was `cancelled` meanwhile."""
    NodeUp(host=node_name()).write(attempt.node_up(node))  # shows that its launcher has started
    if found := find(run, plan, cancelled):
        text = found.screen or found.message
        print(text, flush=True)
        with open(attempt.node_log(node), "a") as log:
            log.write(f"{text}\n")
    return found


def find(run: RunDir, plan: JobPlan, cancelled: Callable[[], bool]) -> Finding | None:
    """What the checks find on this node first; None if they find nothing, or are cancelled before."""
    answer = within(FILES_SECONDS, lambda: missing(run, plan), cancelled)
    if isinstance(answer, Exception):
        return Finding("missing", f"{node_name()} cannot look for what the ranks need: {type(answer).__name__}: "
                                  f"{visible(' '.join(str(answer).split()))[:LONGEST_LINE]}")
    if answer is None:
        return Finding("failed", f"{node_name()} waits for a file server: the files of the run or its data do not "
                                 f"answer within {FILES_SECONDS:g} s")
    if answer:
        more = f", and {len(answer) - 1} more" if len(answer) > 1 else ""
        return Finding("missing", f"{node_name()} lacks what the ranks need: {answer[0].what}{more}",
                       f"on {node_name()}, before its ranks start:\n{LaunchError(*answer)}")
    return run_check(plan.site.node_check, cancelled) if plan.site.node_check else None


def missing(run: RunDir, plan: JobPlan) -> list[Fault]:
    """What does not exist on this node: Python, the code, the folder to run in, and the files and folders of
    Drumbeat's datasets. The user's own datasets and models are built by the ranks, which report what they lack."""
    code = [folder for name in ("PYTHONPATH", USER_PATH) for folder in plan.environment.get(name, "").split(os.pathsep)
            if Path(folder).is_relative_to(plan.run_dir)]
    needed = {plan.python: "Python", plan.folder: "the folder in which the command was typed",
              **dict.fromkeys(code, "the run's copy of the code")}
    absent = [f"{what}: {wrong}" for path, what in needed.items() if (wrong := unreadable(Path(path)))]
    faults = [Fault(what=what, remedy=REMEDY * (what == absent[-1])) for what in absent]
    try:
        check_data(read(run.config), fixed=True)
    except PreflightError as error:
        faults += error.faults
    except (UserError, OSError):  # of the config, which the ranks report
        pass
    return faults


def within(seconds: float, call: Callable[[], list[Fault]], cancelled: Callable[[], bool]
           ) -> list[Fault] | Exception | None:
    """The result of a call that may wait for a file server, or the exception that it raised; None if it takes longer,
    and no faults if it was cancelled. Then its thread stays."""
    results: list[list[Fault] | Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < until:
        if cancelled():
            return []
        thread.join(POLL_SECONDS)
    return results[0] if results else None


def run_check(command: str, cancelled: Callable[[], bool]) -> Finding | None:
    """Runs the site's check. It receives none of SLURM's signals, and what it leaves running is killed. Returns None if
    it passes, or is cancelled before it ends."""
    shell = shutil.which("bash") or "sh"
    try:
        process = subprocess.Popen([shell, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   preexec_fn=child_setup(*BLOCKED_SIGNALS))
    except OSError as error:  # no memory, or the node's own disk does not answer
        return Finding("failed", f"the node check cannot be run on {node_name()}: {error.strerror}")
    try:
        output, code = _watch(process, cancelled), process.returncode
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # it waits for a disk or a driver
            process.wait(KILL_SECONDS)
    if code == 0 or (code is None and cancelled()):
        return None
    line = visible(next(filter(None, map(str.strip, reversed(output.splitlines()))), ""))[:LONGEST_LINE]
    last = f": {line}" if line else ""
    if code is None:
        return Finding("failed", f"the node check on {node_name()} took longer than {CHECK_SECONDS:g} s{last}")
    if code in NOT_RUN:
        return Finding("missing", f"the node check cannot be run on {node_name()}: it {exit_text(code)}{last}")
    return Finding("failed", f"the node check on {node_name()} {exit_text(code)}{last}")


def _watch(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> str:
    """The end of the output of a process, once it has ended, its time is over, or it is cancelled. Time in which this
    process was suspended does not count."""
    assert process.stdout
    output, spent, before, is_open = b"", 0.0, time.monotonic(), True
    os.set_blocking(process.stdout.fileno(), False)
    while True:
        ended = process.poll() is not None
        if not is_open:
            time.sleep(POLL_SECONDS)
        elif select.select([process.stdout], [], [], 0 if ended else POLL_SECONDS)[0]:
            piece = os.read(process.stdout.fileno(), 1 << 16)
            output, is_open = (output + piece)[-TAIL_BYTES:], bool(piece)
        elif ended:
            is_open = False
        now = time.monotonic()
        spent, before = spent + min(now - before, 1.0), now
        if (ended and not is_open) or spent > CHECK_SECONDS or cancelled():
            process.stdout.close()
            return output.decode("utf-8", "replace")
