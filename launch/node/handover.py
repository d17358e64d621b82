"""How a run passes from one job to the next.

SLURM queues a job again, as a rule, and the run goes on in it. Where it does not (the job may not be queued again, or
its nodes cannot ask for it), a second job is queued when the first one starts: SLURM starts it if the first ends
without success in whatever way, and drops it otherwise. Whom a run belongs to stands in its job.json, so no run goes on
twice.
"""

from __future__ import annotations

from dataclasses import replace

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.manifest import checkpoint_text, newest_checkpoint
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import ENDED, Job, NodeUp, Status, Verdict
from drumbeat.launch.attempts.verdict import in_a_row, judge
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm.client import ask
from drumbeat.launch.slurm.job import SlurmJob, job_name, ours

CONTINUE = 75
"""The exit code of a job that another one is to follow; any but 0 would do. sysexits.h calls it a temporary failure."""
AGAIN = 129
"""The exit code that has the launchers started again in the same allocation, as if one had been killed by a signal."""


def take_over(run: RunDir, slurm_job: SlurmJob, *, first: bool) -> bool:
    """Whether the run belongs to this job, or now does because the one before has left it. Every node's launcher asks;
    the first one writes it down."""
    job, status = _job(run), Status.read(run.status)
    if job.cancelled:  # by hand, and these launchers were being started again
        return False
    if job.id == slurm_job.job or not (job.id or slurm_job.after):  # not written down yet
        return True
    if job.id != slurm_job.after or (status and status.state in ENDED):
        return False
    if slurm_job.follows_a_cancelled_job():
        if first:
            run.write_status("cancelled", attempt=run.newest_number(),
                             verdict=f"SLURM job {slurm_job.after} was cancelled")
        return False
    if first:
        replace(job, id=slurm_job.job, next_job=None).write(run.job)
    return True


def _job(run: RunDir) -> Job:
    """Where the run was started; without an id where that is not written down yet."""
    return Job.read(run.job) or Job(backend="slurm")


def queue_successor(run: RunDir, plan: JobPlan, slurm_job: SlurmJob) -> str:
    """Queues the job that follows this one if it ends without success. Returns '', or why it could not be done."""
    job = _job(run)
    if job.next_job:
        return ""  # queued before this job was queued again
    try:
        slurm = Slurm()
        queued = slurm.submit(slurm.request(plan, after=slurm_job.job))
    except LaunchError as refusal:
        return (refusal.faults[0].given or refusal.faults[0].what).splitlines()[0]
    replace(job, id=slurm_job.job, next_job=queued.id).write(run.job)
    print(f"job {queued.id} goes on with the run if this one ends early: SLURM would not queue it again", flush=True)
    return ""


def drop_successor(run: RunDir) -> None:
    """Takes the job that was to follow out of the queue: the run has ended. Where that fails, the job leaves as soon as
    it has started; after a success, SLURM drops it by itself."""
    if job := _job(run).next_job:
        ask("scancel", job)


def look_back(run: RunDir, plan: JobPlan, slurm_job: SlurmJob, *, first: bool) -> Verdict | None:
    """The verdict of the attempt before, where this job or the one it follows claimed it: found now, if its launchers
    were killed before they could; or that of an earlier start of these launchers, which the job's script has started
    again because one of them was killed on its way out. None where nothing is known, or it does not matter any more.
    Every node's launcher looks; the first one judges what nobody has."""
    before = run.newest_attempt()
    if before is None or not any(job and ours(before, job) for job in (job_name(), slurm_job.after)):
        return None
    if verdict := Verdict.read(before.verdict):
        return verdict if ours(before, f"{job_name()}.{slurm_job.restarts}") else None
    if not first:
        return None
    verdict = abandoned(run, before, nodes=plan.topology.nodes, restarts=plan.restarts)
    verdict.write(before.verdict)
    if verdict.next == "give up":
        run.write_status("failed", attempt=before.number, verdict=verdict.message)
    return verdict


def abandoned(run: RunDir, attempt: Attempt, *, nodes: int, restarts: int) -> Verdict:
    """The verdict of an attempt whose launchers were killed before they could judge it, found by those that follow.
    Costs as much as any other failure, unless its ranks had been asked to stop and only the time ran out."""
    gone = [node for node in range(nodes) if not attempt.node_down(node).exists()]
    if len(gone) in (0, nodes) and (attempt.stop.exists() or attempt.saved.exists()):
        return judge(run, attempt, restarts=restarts, slurm="terminated")
    step = newest_checkpoint(run)
    names = [up.host if (up := NodeUp.read(attempt.node_up(node))) else f"node {node}" for node in gone]
    words = f"the node launcher on {' or '.join(names)} was killed, or the node failed; {checkpoint_text(run)}"
    past = in_a_row(run, attempt, step)
    if spent := len(past) >= restarts:
        words += f"; given up: {len(past) + 1} times in a row without a newer checkpoint"
    return Verdict(outcome="failed", next="give up" if spent else "restart", message=words, step=step)
