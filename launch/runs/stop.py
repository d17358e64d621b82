"""What one can do to a run that exists: have it save and leave, or end it now."""

from __future__ import annotations

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.manifest import checkpoint_text
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.status import unrecorded_end


def request_stop(view: View) -> str:
    """Asks a run to save and leave; what was done, in words. Raises `RunError` where nobody would hear it."""
    run, attempt, state = view.run, view.attempt, view.state or "unknown"
    if view.ended:
        return f"{run.id} is {state} already"
    if attempt is None or state in ("pending", "preempted"):
        remedy = (f"Take it out of the queue: {command('cancel', run)}" if backend_of(view.backend).on_slurm
                  else "Try again in a moment.")
        raise RunError(Fault(what="the run is waiting to start, and nobody is there to stop", where=str(run.path),
                             given=f"state: {state}", remedy=remedy))
    if unrecorded_end(view):
        raise RunError(Fault(what="nothing of this run is at work any more", where=str(run.path),
                             given=f"state: {state}", remedy=f"Go on with it: {command('resume', run)}"))
    attempt.request_stop("stopped")
    return f"{run.id} saves after a step and leaves. To go on with it:\n{command('resume', run)}"


def cancel(view: View) -> str:
    """Ends a run now, wherever it runs or waits; what was done, in words. What it saved stays. Raises `RunError` where
    it cannot be reached."""
    run, job = view.run, view.job
    if view.ended and not processes_of(view):
        return f"{run.id} is {view.state} already"
    ended = backend_of(job.backend if job else "local").cancel(view)
    saved, after = checkpoint_text(run), View.read(run)
    if not after.ended:  # a launcher that had the time has told it itself
        run.write_status("cancelled", attempt=after.number, verdict=f"cancelled; {saved}")
    return f"{ended}; {saved}. To go on with it:\n{command('resume', run)}"
