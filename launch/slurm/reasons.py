"""squeue's reasons for a job that waits, in words, and what to do about them."""

from __future__ import annotations

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
