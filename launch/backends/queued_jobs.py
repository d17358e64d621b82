"""What SLURM says about the jobs of a run: whether they have ended, why they wait, and how they ended."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.blame import but_not_all, has_all_launchers
from drumbeat.launch.backends.contract import Rows, UnrecordedEnd
from drumbeat.launch.backends.job_log import last_change, last_line, node_without_launcher
from drumbeat.launch.backends.typed import command
from drumbeat.launch.slurm.client import (
    SHORT_TIMEOUT,
    QueuedJob,
    SlurmUnreachableError,
    job_state,
    queued,
    split_id,
)
from drumbeat.launch.slurm.ended import job_end
from drumbeat.launch.slurm.node_list import node_names
from drumbeat.launch.slurm.node_states import lost_nodes
from drumbeat.launch.slurm.reasons import explain_reason
from drumbeat.launch.slurm.states import explain_state

LOST_NODE = ("NODE_FAIL", "BOOT_FAIL")
"""States of jobs whose nodes have failed."""


def ids_of(view: View) -> list[str]:
    """The ids of the run's job and of its next job; none in a copy of a run's folder, whose records name the
    original's."""
    planned = Path(view.plan.run_dir)
    if view.job is None or (planned.is_dir() and not planned.samefile(view.run.path)):
        return []
    return [one for one in (view.job.id, view.job.next_job) if one]


def jobs_of(view: View) -> list[str]:
    """The run's jobs that have not ended. Raises `SlurmUnreachableError`."""
    return [job.id for job in queued(view.run.id, *ids_of(view)) if not _is_another_folders(job, view.run)]


def _is_another_folders(job: QueuedJob, run: RunDir) -> bool:
    """Whether a job with the run's id is that of another folder, of which this one is a copy."""
    folder = Path(job.command).parent.parent
    return folder.name == run.id and folder.is_dir() and not folder.samefile(run.path)


def queue_evidence(job: str) -> str:
    """Evidence that a job has not ended. If SLURM does not answer, the job may still be running."""
    try:
        state = job_state(job)
    except SlurmUnreachableError as error:
        return f"SLURM job {job}, state unknown: {error}"
    return f"SLURM job {job} is {state.lower()}" if state else ""


def queued_evidence(view: View) -> str:
    """Evidence of a job of the run whose id is not recorded, because the command that submitted it was killed."""
    try:
        jobs = queued(view.run.id, timeout=SHORT_TIMEOUT)
        return next((f"SLURM job {job.id} is {job.state.lower()}" for job in jobs), "")
    except SlurmUnreachableError as error:
        return f"a SLURM job, state unknown: {error}"


def explain(view: View) -> Rows:
    """The state of the run's jobs in SLURM; empty if it knows none."""
    run, job = view.run, view.job
    if job is None or not job.id:
        return []
    try:
        jobs = queued(run.id, *ids_of(view), timeout=SHORT_TIMEOUT)
    except SlurmUnreachableError as error:
        return [("job", job.id), ("why", f"SLURM does not answer: {error}"),
                ("fix", f"Try again later. What the run itself has recorded: {command('status', run)}")]
    if not jobs and view.state in ("running", "paused"):  # `status` does not ask SLURM after a recent heartbeat
        return [("job", f"{job.id}, which SLURM no longer knows"),
                ("why", f"its job has ended, and its last heartbeat was {view.seconds_since_heartbeat():.0f} s "
                        "ago: it may still be recording how it ended, or it was killed, or its node failed"),
                ("fix", f"Check again in ten seconds; or resume the run: {command('resume', run)}")]
    if not jobs:
        return []
    rows: Rows = []
    for one in jobs:
        rows.append(("job", f"{one.id}, {one.state.lower()} in partition {one.partition}"))
        if one.state != "RUNNING":
            rows += _waiting(run, one)
    if all(one.state == "RUNNING" for one in jobs):
        rows.append(("why", f"it is running normally: {command('logs -f', run)}"))
    return rows


def _waiting(run: RunDir, job: QueuedJob) -> Rows:
    """Why a job does not run: the reason if it is pending, otherwise its state."""
    pending = job.state == "PENDING"
    meaning, remedy = explain_reason(job.reason) if pending else explain_state(job.state)
    number, cluster = split_id(job.id)
    for name, value in (("CANCEL", command("cancel", run)), ("RESUME", command("resume", run)),
                        ("LOGS", command("logs -f", run)), ("JOB", number), ("PARTITION", job.partition),
                        *([("scontrol", f"scontrol -M {cluster}")] if cluster else [])):
        remedy = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), remedy)
    start = [("start", f"expected at {job.start.replace('T', ' ')}")] if job.start not in ("N/A", "", "Unknown") else []
    known = job.reason.partition(",")[0] if pending else job.state
    return [("why", f"{known}: {meaning}"), *(start if pending else ()), ("fix", remedy)]


def unrecorded_end(view: View) -> UnrecordedEnd:
    """How the run's job has ended, from SLURM, and from the job's log. It names the nodes on which the job failed: the
    only one of several on which its launcher did not start, and those that SLURM has lost."""
    job = view.job.id if view.job else None
    if not job:
        return UnrecordedEnd()
    end, line, waiting = job_end(job), last_line(view.run, job), view.state in ("pending", "preempted")
    incomplete = waiting or (view.attempt is not None and not has_all_launchers(view.attempt))
    node = node_without_launcher(view.run, job)[0] if incomplete and view.plan.topology.nodes > 1 else ""
    early = " before its launcher started" if waiting or node else ""
    where = f" on {node}" if node else ""
    reason = f"SLURM job {job} ended{early}{where}: {end.message if end else 'SLURM no longer knows why'}"
    bad = {node: f"its launcher did not start{f': {line}' if line else ''}"} if node else {}
    if end and end.state in LOST_NODE:
        with suppress(ValueError):
            nodes = node_names(end.nodes)
            bad |= dict.fromkeys(but_not_all(lost_nodes(nodes), nodes), f"SLURM lost it ({end.state})")
    return UnrecordedEnd(state="cancelled" if end and end.state == "CANCELLED" else "failed",
                         reason=f"{reason}; its log: {line}" if line else reason, bad_nodes=bad,
                         time=last_change(view.run, job) or time.time())
