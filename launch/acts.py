"""What one can do to a run that exists."""

from __future__ import annotations

from configs.errors import Fault, RunError
from configs.rundir import ENDED, RunDir, read_json
from launch.runs import resume_command, still_runs


def ask_to_stop(run: RunDir) -> str:
    """Asks a run to save and leave; what was done, in words. Raises `RunError` where nobody would hear it."""
    status, attempt = read_json(run.status), run.newest_attempt()
    state = status.get("state")
    if state in ENDED:
        return f"{run.id} is {state} already"
    job = read_json(run.job)
    if attempt is None or state in ("pending", "preempted"):
        queued = job.get("where") == "slurm"
        remedy = f"Take it out of the queue: scancel {job['id']}" if queued else "Try again in a moment."
        raise RunError(Fault(what="the run is waiting to start, and nobody is there to stop", where=str(run.path),
                             given=f"state: {state}", remedy=remedy))
    if job.get("where") != "slurm" and not still_runs(run):
        raise RunError(Fault(what="nothing of this run is at work any more", where=str(run.path),
                             given=f"state: {state}", remedy=f"Go on with it: {resume_command(run)}"))
    attempt.ask_to_stop("stopped")
    return f"{run.id} saves after a step and leaves. To go on with it:\n{resume_command(run)}"
