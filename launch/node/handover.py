"""How a run passes from one job to the next.

Normally SLURM requeues the job, which then resumes the run. If SLURM would not (the job may not be requeued, or its
nodes cannot ask for it), the first job queues a next job when it starts. SLURM starts that job if the first one fails
in any way, and drops it otherwise. job.json says which job the run belongs to, so that two jobs never run it at once.
"""

from __future__ import annotations

from dataclasses import replace

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_text, newest_checkpoint
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import ENDED, Job, Next, NodeUp, Status, Verdict
from drumbeat.launch.attempts.blame import nodes_of
from drumbeat.launch.attempts.verdict import consecutive_failures, verdict_of
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.node.lost_nodes import remember_nodes, with_lost_nodes
from drumbeat.launch.slurm.client import join_id, run_slurm, split_id
from drumbeat.launch.slurm.job import SlurmJob, claimed_by, job_name

CONTINUE, REQUEUE_ME = 75, 76
"""The exit codes of a job that a next job follows, and of one that its script requeues, for launchers in a container
without SLURM's programs. Any codes but 0 would do. sysexits.h: 75 is a temporary failure."""
AGAIN = 129
"""The exit code that makes the script restart the launchers in the same allocation, as after a signal."""


def take_over(run: RunDir, slurm_job: SlurmJob, *, first: bool) -> bool:
    """Whether the run belongs to this job, or does now because the previous job has left it. The launchers of all nodes
    call it; the first node's records it."""
    job, status = _job(run), Status.read(run.status)
    if job.cancelled:  # by a user, while these launchers were being restarted
        return False
    recorded, cluster = split_id(job.id or "")
    if recorded == slurm_job.job or not (recorded or slurm_job.previous_job):  # not recorded yet
        return True
    if recorded != slurm_job.previous_job or (status and status.state in ENDED):
        return False
    if slurm_job.previous_job_was_cancelled():
        if first:
            run.write_status("cancelled", attempt=run.newest_number(),
                             verdict=f"SLURM job {slurm_job.previous_job} was cancelled")
        return False
    if first:
        replace(job, id=join_id(slurm_job.job, cluster), next_job=None).write(run.job)
    return True


def _job(run: RunDir) -> Job:
    """Where the run was started; without an id if that is not recorded yet."""
    return Job.read(run.job) or Job(backend="slurm")


def queue_next_job(run: RunDir, plan: JobPlan, slurm_job: SlurmJob) -> str:
    """Queues the job that resumes the run if this one fails. Returns '', or why SLURM refused."""
    job = _job(run)
    if job.next_job:
        return ""  # queued before this job was requeued
    slurm = Slurm()
    request = slurm.request(plan, after=slurm_job.job)
    try:
        queued = slurm.submit(request)
    except LaunchError as error:
        return (error.faults[0].given or error.faults[0].what).splitlines()[0]
    cluster = split_id(job.id or "")[1]
    replace(job, id=join_id(slurm_job.job, cluster), next_job=join_id(str(queued.id), cluster)).write(run.job)
    for line in (f"job {queued.id} resumes the run if this one ends early", *request.notes):
        print(line, flush=True)
    return ""


def ensure_next_job(run: RunDir, plan: JobPlan, slurm_job: SlurmJob) -> bool:
    """First node: queues a next job if SLURM would not requeue this one. Returns `Launcher.has_next_job`."""
    if not slurm_job.needs_next_job():
        return False
    error = queue_next_job(run, plan, slurm_job)
    if error and not plan.site.prefix:
        print(f"warning: SLURM would neither requeue this job nor accept a next one: {error}", flush=True)
    return not error or bool(plan.site.prefix)


def queue_elsewhere(run: RunDir, plan: JobPlan, slurm_job: SlurmJob) -> str:
    """Queues the job that resumes the run without the nodes that are remembered now. A requeued job would keep its
    options. Returns '', or why SLURM refused."""
    if not (next_job := _job(run).next_job):
        return queue_next_job(run, plan, slurm_job)
    options = Slurm().request(plan, after=slurm_job.job).parameters["additional_parameters"]
    number, cluster = split_id(next_job)
    answer = run_slurm("scontrol", "update", f"jobid={number}", f"excnodelist={options.get('exclude', '')}",
                       cluster=cluster)
    return answer.text if answer.code else ""


def queue_again(run: RunDir, plan: JobPlan, slurm_job: SlurmJob, *, elsewhere: bool, has_next_job: bool
                ) -> tuple[bool, str]:
    """Has the run resumed by the next job, by this job once it is requeued, or by another one: by another one first if
    it has to run `elsewhere`. Returns whether a next job is queued, and why SLURM refused all of them, or ''."""
    if elsewhere:
        if not (error := queue_elsewhere(run, plan, slurm_job)):
            return True, ""
        print(f"warning: the run may be queued again with the same nodes: {error}", flush=True)
    if has_next_job or not (error := slurm_job.requeue()):
        return has_next_job, ""
    other_error = queue_next_job(run, plan, slurm_job)
    return not other_error, other_error and f"{error}; nor does it accept another job: {other_error}"


def queue_after(verdict: Verdict, run: RunDir, plan: JobPlan, slurm_job: SlurmJob, has_next_job: bool
                ) -> tuple[Verdict, bool]:
    """Has the run resumed after a verdict that says so. Returns the verdict, which says if SLURM refused, and whether a
    next job is queued."""
    failed = verdict.outcome == "failed"
    has_next_job, error = queue_again(run, plan, slurm_job, elsewhere=failed, has_next_job=has_next_job)
    if error:
        verdict = replace(verdict, next="give up" if failed else "leave",
                          message=f"{verdict.message}; SLURM does not requeue it: {error}")
    return verdict, has_next_job


def exit_code(run: RunDir, *, has_next_job: bool) -> int:
    """The exit code of the first node's launcher if the run continues in another job, or in this one once more."""
    if not has_next_job:
        return 0  # it is requeued, which ends it
    return CONTINUE if _job(run).next_job else REQUEUE_ME


def has_next_job(run: RunDir, plan: JobPlan, slurm_job: SlurmJob) -> bool:
    """What the first node's launcher knows, for that of another node which decides now: see `Launcher.has_next_job`."""
    return bool(_job(run).next_job or (plan.site.prefix and slurm_job.needs_next_job()))


def cancel_next_job(run: RunDir, slurm_job: SlurmJob) -> None:
    """Removes the next job from the queue, because the run has ended in this job: that of another job, which has taken
    over the run, stays. If that fails, the job exits as soon as it starts; after a success, SLURM drops it by
    itself."""
    job = _job(run)
    if job.next_job and split_id(job.id or "")[0] == slurm_job.job:
        run_slurm("scancel", split_id(job.next_job)[0])


def previous_verdict(run: RunDir, plan: JobPlan, slurm_job: SlurmJob, *, first: bool) -> Verdict | None:
    """The verdict of the previous attempt, if this job or its previous job claimed it: determined now if its launchers
    were killed before they could; or that of an earlier start of these launchers, which the job's script has restarted
    because one of them was killed while shutting down. None if nothing is known or relevant. The launchers of all nodes
    call it; the first node's determines a missing verdict."""
    before = run.newest_attempt()
    if before is None or not any(job and claimed_by(before, job) for job in (job_name(), slurm_job.previous_job)):
        return None
    if verdict := Verdict.read(before.verdict):
        return verdict if claimed_by(before, f"{job_name()}.{slurm_job.restarts}") else None
    if not first:
        return None
    verdict = verdict_of_abandoned(run, before, nodes=len(nodes_of(before)) or plan.topology.nodes,
                                   restarts=plan.restarts)
    verdict = with_lost_nodes(verdict, before)
    remember_nodes(run, verdict)
    verdict.write(before.verdict)
    if verdict.next in ("leave", "give up") and verdict.outcome != "superseded":
        run.write_status(verdict.state, attempt=before.number, verdict=verdict.message)
    return verdict


def nodes_lost(run: RunDir, plan: JobPlan, slurm_job: SlurmJob, lost: str, has_next_job: bool) -> tuple[bool, Next]:
    """First node: has the run resumed in a job that has all nodes, because this one has `lost` some, as text. Returns
    whether a next job is queued, and what happens next."""
    has_next_job, refusal = queue_again(run, plan, slurm_job, elsewhere=False, has_next_job=has_next_job)
    message = f"{lost}; {f'SLURM does not requeue it: {refusal}; ' if refusal else ''}{checkpoint_text(run)}"
    run.write_status("failed" if refusal else "preempted", attempt=run.newest_number(), verdict=message)
    return has_next_job, "give up" if refusal else "requeue"


def verdict_of_abandoned(run: RunDir, attempt: Attempt, *, nodes: int, restarts: int) -> Verdict:
    """The verdict of an attempt whose launchers were killed before they could determine it. It counts as a failure,
    unless the ranks had been asked to stop and only ran out of time."""
    killed = [node for node in range(nodes) if not attempt.node_down(node).exists()]
    if len(killed) in (0, nodes) and (attempt.stop.exists() or attempt.saved.exists()):
        return verdict_of(run, attempt, restarts=restarts, slurm="terminated")
    step = newest_checkpoint(run)
    names = [up.host if (up := NodeUp.read(attempt.node_up(node))) else f"node {node}" for node in killed]
    message = f"the node launcher on {' or '.join(names)} was killed, or the node failed; {checkpoint_text(run)}"
    past = consecutive_failures(run, attempt, step)
    if spent := len(past) >= restarts:
        message += f"; given up: {len(past) + 1} times in a row without a newer checkpoint"
    return Verdict(outcome="failed", next="give up" if spent else "restart", message=message, step=step)
