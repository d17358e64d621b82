"""What one can do to a run that exists: have it save and leave, or end it now."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_text
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.runs.find import command, processes_of
from drumbeat.launch.runs.status import gone
from drumbeat.launch.slurm.client import SilentError, cancel_jobs, queued, steps

END_SECONDS = 90.0
"""SLURM gives a job that is cancelled its KillWait, 30 s unless the site says otherwise, and then kills it."""
KILL_SECONDS = 10.0
"""A killed process that is still there after so long waits for a device that does not answer."""


def ask_to_stop(view: View) -> str:
    """Asks a run to save and leave; what was done, in words. Raises `RunError` where nobody would hear it."""
    run, attempt, state = view.run, view.attempt, view.state or "unknown"
    if view.ended:
        return f"{run.id} is {state} already"
    if attempt is None or state in ("pending", "preempted"):
        remedy = (f"Take it out of the queue: {command('cancel', run)}" if view.where in ("here", "slurm")
                  else "Try again in a moment.")
        raise RunError(Fault(what="the run is waiting to start, and nobody is there to stop", where=str(run.path),
                             given=f"state: {state}", remedy=remedy))
    if gone(view):
        raise RunError(Fault(what="nothing of this run is at work any more", where=str(run.path),
                             given=f"state: {state}", remedy=f"Go on with it: {command('resume', run)}"))
    attempt.ask_to_stop("stopped")
    return f"{run.id} saves after a step and leaves. To go on with it:\n{command('resume', run)}"


def cancel(view: View) -> str:
    """Ends a run now, wherever it runs or waits; what was done, in words. What it saved stays. Raises `RunError` where
    it cannot be reached."""
    run, job = view.run, view.job
    if view.ended and not processes_of(view):
        return f"{run.id} is {view.state} already"
    if job and job.where == "slurm":
        ended = _cancel_jobs(run, [one for one in (job.id, job.successor) if one])
    elif job and job.where == "here":
        ended = _end_in_allocation(view, job)
    else:
        ended = _end_here(view, job)
    saved, after = checkpoint_text(run), View.read(run)
    if not after.ended:  # a launcher that had the time has told it itself
        run.write_status("cancelled", attempt=after.number, verdict=f"cancelled; {saved}")
    return f"{ended}; {saved}. To go on with it:\n{command('resume', run)}"


def _cancel_jobs(run: RunDir, ids: list[str]) -> str:
    """Cancels the run's jobs, the one that waits to follow included, and waits until SLURM has ended them."""
    try:
        jobs = [job.id for job in queued(run.id, *ids)]
        if jobs:
            cancel_jobs(*jobs)
        until = time.monotonic() + END_SECONDS
        while (left := [job.id for job in queued(run.id, *ids)]) and time.monotonic() < until:
            time.sleep(0.5)
    except SilentError as error:
        raise _silent(run, error) from None
    return (f"SLURM job{'s' * (len(jobs) > 1)} {', '.join(jobs)} "
            f"{'cancelled, and still ending' if left else 'cancelled'}" if jobs
            else f"SLURM knows of no job of {run.id} any more")


def _end_in_allocation(view: View, job: Job) -> str:
    """Ends a run's step in a job that is the user's own, and leaves that job alone."""
    try:
        left = end_steps(view, job)
    except SilentError as error:
        raise _silent(view.run, error) from None
    return f"{view.run.id} ended{', or about to: ' + ', '.join(left) if left else ''}; SLURM job {job.id} stays"


def end_steps(view: View, job: Job) -> list[str]:
    """Kills a run in an allocation: its step, and what would start that again, which may be on another machine. Returns
    the steps that have not ended in time. Raises `SilentError`."""
    run = view.run
    found = steps(str(job.id), run.id)
    replace(job, cancelled=True).write(run.job)
    end_processes(view)
    if found:
        cancel_jobs(*found)
    until = time.monotonic() + END_SECONDS
    while (left := steps(str(job.id), run.id)) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def _silent(run: RunDir, error: SilentError) -> RunError:
    return RunError(Fault(what="the run cannot be cancelled: SLURM does not answer", where=str(run.path),
                          given=str(error), remedy="Try again later; or have the run save and leave, which needs no "
                                                   f"SLURM: {command('stop', run)}"))


def _end_here(view: View, job: Job | None) -> str:
    """Kills all processes of a run on this machine."""
    run = view.run
    if job and job.host not in ("", socket.gethostname()):
        raise RunError(Fault(what=f"the run is on another machine, {job.host}", where=str(run.path),
                             remedy="Type this there."))
    running = processes_of(view)
    if job and job.where == "debug" and job.process and _in_debug(job.process):
        running.append(job.process)
        os.kill(job.process, signal.SIGKILL)
    if left := end_processes(view):
        raise RunError(Fault(what="some of its processes do not end", where=str(run.path),
                             given=", ".join(map(str, left)),
                             remedy="They wait for a disk or a driver that does not answer."))
    return f"{run.id} ended" if running else f"nothing of {run.id} was at work any more"


def _in_debug(process: int) -> bool:
    """Whether this is a run in --debug, and not another process that has got its number since."""
    try:
        return b"--debug" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def end_processes(view: View, *parents: int) -> list[int]:
    """Kills all processes of a run on this machine, and all below these parents. Returns what does not end."""
    until = time.monotonic() + KILL_SECONDS
    while running := {*(below for parent in parents for below in descendants(parent)), *processes_of(view)}:
        if time.monotonic() > until:
            return sorted(running)
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return []
