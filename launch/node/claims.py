"""Attempts: the first node's launcher claims the next one, and those of the other nodes join it."""

from __future__ import annotations

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.disk import persist
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.records import AttemptStart, StopRequest, Verdict
from drumbeat.launch.node.handshake import write_secret
from drumbeat.launch.node.members import Members
from drumbeat.launch.node.rendezvous import free_port, meeting_address, step_nodes
from drumbeat.launch.slurm.job import SlurmJob, claimed_by, job_name, job_start_name

OLDER = 10
"""How many attempts before the newest are looked at."""


class RunFailedError(Exception):
    """The run was given up. Raised so that SLURM marks the job as failed, too."""


def claim_attempt(run: RunDir, members: Members, slurm_job: SlurmJob | None) -> tuple[Attempt, bool]:
    """First node: claims the next attempt, and records who takes part and the address at which the ranks will meet.
    Also returns whether the run was asked to stop when the attempt before, of the same job, had already ended."""
    nodes = len(members.numbers)
    before = run.newest_attempt()
    persist(run.path.stat)  # or the folder of a disk that is gone would be made on another one
    attempt = persist(run.claim_attempt)
    jobs = {job_name(), slurm_job.previous_job if slurm_job else ""} - {""}
    request = StopRequest.read(before.stop) if before and any(claimed_by(before, job) for job in jobs) else None
    if nodes > 1:
        write_secret(attempt)
    names = step_nodes(members.total)
    AttemptStart(job=job_start_name(), host=node_name(), nodes=tuple(names[number] for number in members.numbers),
                 members=members.numbers, ranks=members.topology.world_size, address=meeting_address(nodes),
                 port=free_port(), on_slurm=slurm_job is not None).write(attempt.launch)
    last = Verdict.read(before.verdict) if before else None  # the reason for this attempt, perhaps
    run.write_status("running", attempt=attempt.number,
                     verdict=last.message if last and last.next in ("restart", "requeue") else "")
    return attempt, request is not None and request.reason == "stopped"


def claimed_attempt(run: RunDir, after: int) -> Attempt | None:
    """Other nodes: the newest attempt, with a number greater than `after`, that the first node claimed for this start
    of the job; None if there is none yet."""
    newest = run.newest_number()
    for number in range(newest, max(after, newest - OLDER), -1):
        if claimed_by(run.attempt(number), job_start_name()):
            return run.attempt(number)
    return None
