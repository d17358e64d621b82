"""Why a run is not at work, in words, and what to do: from its folder, and from SLURM where its job waits there."""

from __future__ import annotations

import re

from drumbeat.configs.errors import hang
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.find import SILENCE_SECONDS, command, still_runs
from drumbeat.launch.runs.status import clock
from drumbeat.launch.slurm.client import QueuedJob, SilentError, queued
from drumbeat.launch.slurm.limits import limit

REASONS: dict[str, tuple[str, str]] = {
    "Resources": ("it is next, and waits for nodes to become free",
                  "Wait; or ask for less: fewer --nodes or --gpus, a shorter time_minutes."),
    "Priority": ("other jobs are ahead of it in the queue",
                 "Wait; a shorter time_minutes may let it slip in before them. sprio shows the order."),
    "None": ("SLURM has not looked at it yet", "Look again in a minute."),
    "BeginTime": ("it may not start before a certain time; a job that was queued again waits for two minutes or so",
                  "Wait; or let it start at once: scontrol update jobid=JOB starttime=now"),
    "Dependency": ("it starts when another job has ended", "Wait for that job: squeue --me"),
    "DependencyNeverSatisfied": ("it was to follow a job that did not end as it should have",
                                 "Take it out of the queue (CANCEL), and RESUME."),
    "JobHeldUser": ("it is held, by you", "Let it go: scontrol release JOB"),
    "JobHeldAdmin": ("it is held, by an administrator", "Ask the administrators of the cluster."),
    "JobHoldMaxRequeue": ("it was queued again too often, and SLURM holds it", "Let it go: scontrol release JOB"),
    "launch failed requeued held": ("it could not be started on its node, and SLURM holds it",
                                    "Let it go: scontrol release JOB. If that happens again, tell the administrators."),
    "PartitionConfig": ("it asks for what its partition has not, or does not allow",
                        "CANCEL, then ask for less: sinfo -o '%P %D %c %m %G' shows the nodes of each partition, "
                        "scontrol show partition PARTITION its limits."),
    "PartitionDown": ("its partition takes no jobs at the moment", "Wait; or choose another: sinfo shows them."),
    "PartitionInactive": ("its partition starts no jobs at the moment", "Wait; or choose another: sinfo shows them."),
    "PartitionNodeLimit": ("it asks for more nodes than a job in its partition may have",
                           "CANCEL, then ask for fewer: --nodes. scontrol show partition PARTITION says how many."),
    "PartitionTimeLimit": ("it asks for more time than a job in its partition may have",
                           "CANCEL, then ask for less in the profile: time_minutes. A run that needs longer is queued "
                           "again by itself. sinfo -o '%P %l' shows the limits."),
    "ReqNodeNotAvail": ("a node that it needs is down, drained or reserved",
                        "Wait until it is back: sinfo -R says why. A reservation for maintenance begins before the "
                        "job would end: a shorter time_minutes may fit in before it."),
    "Reservation": ("its reservation has not begun", "Wait: scontrol show reservation"),
    "ReservationDeleted": ("its reservation is gone", "CANCEL, and submit without it."),
    "Licenses": ("it waits for a license", "Wait: scontrol show licenses"),
    "InvalidAccount": ("its account does not exist, or you may not use it",
                       "CANCEL, and correct account in the profile: sacctmgr show associations user=$USER"),
    "InvalidQOS": ("its QOS does not exist, or you may not use it",
                   "CANCEL, and correct qos in the profile: sacctmgr show associations user=$USER"),
    "AccountNotAllowed": ("its account may not use this partition", "CANCEL, and choose another account or partition."),
    "QOSNotAllowed": ("its QOS may not be used in this partition", "CANCEL, and choose another qos or partition."),
    "BadConstraints": ("no node has all that it asks for",
                       "CANCEL, and correct constraint in the profile: sinfo -o '%f'"),
    "NodeDown": ("a node that it needs is down", "Wait until it is back: sinfo -R says why."),
    "Cleaning": ("it was queued again, and what is left of it on its nodes is still ending", "Look again in a minute."),
    "MaxMemPerLimit": ("it asks for more memory than a job may have", "CANCEL, and lower mem_gb_per_node."),
    "QOSUsageThreshold": ("its QOS does not let it start: too little of its account's share is left",
                          "Wait; or choose another qos in the profile. sshare shows the shares."),
    "AccountingPolicy": ("a limit of its account or QOS keeps it",
                         "sacctmgr show associations user=$USER shows an account's limits, sacctmgr show qos a QOS's."),
    "Prolog": ("its nodes are being prepared", "Look again in a minute."),
}
"""squeue's reasons in words, and what to do. CANCEL and RESUME stand for the commands."""

def why(view: View) -> str:
    """What keeps a run from going on, in a few lines."""
    job, state = view.job, view.state or "unknown"
    rows = [("run", view.run.id), ("state", state)]
    if state == "finished":
        rows.append(("why", "it has come to its end"))
    elif view.ended:
        rows += [("why", view.verdict or f"it is {state}"), ("do", f"Go on with it: {command('resume', view.run)}")]
    elif job and job.where == "slurm" and job.id:
        rows += _in_slurm(view, [job.id, *([job.successor] if job.successor else [])])
    else:
        waits = state == "pending" and job is not None and job.where == "here"
        rows += _here(view, str(job.id) if job and waits else "")
    return "\n".join(hang(f"{name:<12}", text) for name, text in rows)


def reason_in_words(reason: str) -> tuple[str, str]:
    """What a reason of squeue's means, and what to do about it; the bare reason where nothing is known of it."""
    plain = reason.partition(",")[0].strip("()").replace("_", " ").strip()
    detail = reason.partition(",")[2].strip()
    if plain in REASONS:
        words, remedy = REASONS[plain]
        return words + (f" ({detail})" if detail else ""), remedy
    if found := limit(plain):
        return found.words, f"{'' if found.waits else 'CANCEL, then '}{found.remedy}.".replace("wait", "Wait", 1)
    return (f"SLURM calls it {plain}" + (f" ({detail})" if detail else ""),
            "man squeue explains it, among its reason codes.")


def _in_slurm(view: View, ids: list[str]) -> list[tuple[str, str]]:
    """What SLURM says of the run's job."""
    run = view.run
    try:
        jobs = queued(run.id, *ids)
    except SilentError as silence:
        return [("job", ids[0]), ("why", f"SLURM does not answer: {silence}"),
                ("do", f"Look again later. The folder tells what the run itself knows: {command('status', run)}")]
    if not jobs and view.state == "running":  # and it was heard of so lately that `status` has not asked SLURM
        return [("job", f"{ids[0]}, of which SLURM knows nothing any more"),
                ("why", f"its job has ended, and the run gave a sign of life {view.silence():.0f} s ago: it may still "
                        "write down how it ended, or it was killed, or its node failed"),
                ("do", f"Look again in two minutes; or go on with the run: {command('resume', run)}")]
    if not jobs:
        return [("job", f"{ids[0]}, of which SLURM knows nothing any more"),
                ("why", "it was cancelled, or ended before the run could tell"),
                ("do", f"Go on with the run: {command('resume', run)}")]
    rows: list[tuple[str, str]] = []
    for job in jobs:
        rows.append(("job", f"{job.id}, {job.state.lower()} in partition {job.partition}"))
        if job.state == "PENDING":
            rows += _pending(run, job)
    if not any(job.state == "PENDING" for job in jobs):
        rows.append(("why", f"nothing keeps it: {command('logs -f', run)}"))
    return rows


def _pending(run: RunDir, job: QueuedJob) -> list[tuple[str, str]]:
    words, remedy = reason_in_words(job.reason)
    for name, value in (("CANCEL", command("cancel", run)), ("RESUME", command("resume", run)), ("JOB", job.id),
                        ("PARTITION", job.partition)):
        remedy = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), remedy)
    start = [("start", f"expected at {job.start.replace('T', ' ')}")] if job.start not in ("N/A", "", "Unknown") else []
    return [("why", f"{job.reason.partition(',')[0]}: {words}"), *start, ("do", remedy)]


def _here(view: View, waits_in: str) -> list[tuple[str, str]]:
    """A run that is no SLURM job, and has not ended; `waits_in` is the job in which it waits for room, if it does."""
    run, silence = view.run, view.silence()
    if sign := still_runs(view):
        if waits_in:
            return [("work", sign), ("why", f"it is just starting, or waits for room in SLURM job {waits_in}"),
                    ("do", f"Look again; what else is at work there: squeue --steps --jobs {waits_in}")]
        if view.state == "paused":
            return [("work", sign), ("why", view.verdict),
                    ("do", "Make room, or bring the disk back: the run goes on by itself.")]
        quiet = silence > SILENCE_SECONDS
        return [("work", sign), ("why", f"nothing was heard of it for {clock(silence)}: it may hang, or fill a cache"
                                 if quiet else "nothing keeps it"),
                ("do", command("logs --all" if quiet else "logs -f", run))]
    return [("why", f"nothing of it is at work any more, and it was last heard of {clock(silence)} ago"),
            ("do", f"Go on with it: {command('resume', run)}")]
