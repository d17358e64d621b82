"""Stops a run after a checkpoint, or ends it at once."""

from __future__ import annotations

import time

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.manifest import checkpoint_text
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of, running_evidence
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.status import unrecorded_end

START_SECONDS, POLL_SECONDS = 60.0, 0.1
"""Seconds to wait for the first attempt of a run that was just started on this machine, and between two looks."""


def stop(run: RunDir) -> str:
    """Asks a run to save a checkpoint and exit. Returns a message. Waits if another command is changing the run. Raises
    `RunError` if the run is not running."""
    with changing(run, "stop", wait=True):
        view, until = _started(run), time.monotonic() + START_SECONDS
        while view.state == "pending" and not backend_of(view.backend).on_slurm and (
                running_evidence(view) and time.monotonic() < until):
            time.sleep(POLL_SECONDS)  # its launcher is about to begin an attempt, which can be stopped
            view = View.read(run)
        return _request_stop(view)


def cancel(run: RunDir) -> str:
    """Ends a run at once, wherever it runs or waits; its checkpoints stay. Returns a message. Waits if another command
    is changing the run: one that is being started is ended as soon as it has been. Raises `RunError` if the run cannot
    be reached."""
    with changing(run, "cancel", wait=True):
        return _cancel(_started(run))


def _started(run: RunDir) -> View:
    """The run, once the command that starts it has ended. Raises `RunError` if that command has failed, and removed the
    run."""
    if not run.path.exists():
        raise RunError(Fault(what=f"{run.id} was not started", where=str(run.path),
                             remedy="The command that was starting it says why."))
    return View.read(run)


def _request_stop(view: View) -> str:
    run, attempt, state = view.run, view.attempt, view.state or "unknown"
    if view.ended:
        return f"{run.id} is {state} already"
    if attempt is None or state in ("pending", "preempted"):
        remedy = (f"Take it out of the queue: {command('cancel', run)}" if backend_of(view.backend).on_slurm
                  else "Try again in a moment.")
        raise RunError(Fault(what="the run is waiting to start: there is nothing to stop yet", where=str(run.path),
                             given=f"state: {state}", remedy=remedy))
    if unrecorded_end(view):
        raise RunError(Fault(what="no process of this run is running", where=str(run.path),
                             given=f"state: {state}", remedy=f"Resume it: {command('resume', run)}"))
    attempt.request_stop("stopped")
    return f"{run.id} saves a checkpoint after its current step and exits.\nTo resume it: {command('resume', run)}"


def _cancel(view: View) -> str:
    run, backend = view.run, backend_of(view.backend)
    if view.ended and not backend.processes(view):
        return f"{run.id} is {view.state} already"
    ended = backend.cancel(view)
    saved, after = checkpoint_text(run), View.read(run)
    if not after.ended:  # the launcher may have recorded it itself
        run.write_status("cancelled", attempt=after.number, verdict=f"cancelled; {saved}")
    return f"{ended}; {saved}. To resume it:\n{command('resume', run)}"
