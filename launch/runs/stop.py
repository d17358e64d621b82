"""Stops a run after a checkpoint, or ends it at once."""

from __future__ import annotations

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.manifest import checkpoint_text
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.status import unrecorded_end


def request_stop(view: View) -> str:
    """Asks a run to save a checkpoint and exit. Returns a message. Raises `RunError` if the run is not running."""
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
    return f"{run.id} saves a checkpoint after its current step and exits. To resume it:\n{command('resume', run)}"


def cancel(view: View) -> str:
    """Ends a run at once, wherever it runs or waits; its checkpoints stay. Returns a message. Raises `RunError` if it
    cannot be reached."""
    run, job = view.run, view.job
    if view.ended and not processes_of(view):
        return f"{run.id} is {view.state} already"
    ended = backend_of(job.backend if job else "local").cancel(view)
    saved, after = checkpoint_text(run), View.read(run)
    if not after.ended:  # the launcher may have recorded it itself
        run.write_status("cancelled", attempt=after.number, verdict=f"cancelled; {saved}")
    return f"{ended}; {saved}. To resume it:\n{command('resume', run)}"
