"""What squeue's reasons for a pending job mean, and what to do."""

from __future__ import annotations

from drumbeat.launch.slurm.limits import parse_limit

REASONS: dict[str, tuple[str, str]] = {
    "Resources": ("it is next, and waits for free nodes",
                  "Wait; or request less: fewer --nodes or --gpus, a shorter time_minutes."),
    "Priority": ("other jobs are ahead of it in the queue",
                 "Wait; with a shorter time_minutes it may be backfilled earlier. sprio shows the order."),
    "None": ("SLURM has not scheduled it yet", "Check again in a minute."),
    "BeginTime": ("it may not start before a certain time; a requeued job waits for about two minutes",
                  "Wait; or start it at once: scontrol update jobid=JOB starttime=now"),
    "Dependency": ("it starts after another job has ended", "Wait for that job: squeue --me"),
    "DependencyNeverSatisfied": ("it depends on a job that did not end as required",
                                 "Cancel it (CANCEL), then RESUME."),
    "JobHeldUser": ("you hold it", "Release it: scontrol release JOB"),
    "JobHeldAdmin": ("an administrator holds it", "Ask the administrators of the cluster."),
    "JobHoldMaxRequeue": ("it was requeued too often, and SLURM holds it", "Release it: scontrol release JOB"),
    "launch failed requeued held": ("it could not be started on its node, and SLURM holds it",
                                    "Release it: scontrol release JOB. If it happens again, tell the administrators."),
    "PartitionConfig": ("it requests resources that its partition does not have or allow",
                        "CANCEL, then request less: sinfo -o '%P %D %c %m %G' shows the nodes of each partition, "
                        "scontrol show partition PARTITION its limits."),
    "PartitionDown": ("its partition accepts no jobs at the moment",
                      "Wait; or choose another partition: sinfo lists them."),
    "PartitionInactive": ("its partition starts no jobs at the moment",
                          "Wait; or choose another partition: sinfo lists them."),
    "PartitionNodeLimit": ("it requests more nodes than its partition allows for a job",
                           "CANCEL, then request fewer: --nodes. scontrol show partition PARTITION shows the limit."),
    "PartitionTimeLimit": ("it requests more time than its partition allows for a job",
                           "CANCEL, then lower time_minutes in the profile. A run that needs longer is requeued "
                           "by itself. sinfo -o '%P %l' shows the limits."),
    "ReqNodeNotAvail": ("a node that it needs is down, drained or reserved",
                        "Wait until it is available: sinfo -R shows why. If a maintenance reservation begins "
                        "before the job would end, a shorter time_minutes may fit before it."),
    "Reservation": ("its reservation has not started", "Wait: scontrol show reservation"),
    "ReservationDeleted": ("its reservation was deleted", "CANCEL, and submit without it."),
    "Licenses": ("it waits for a license", "Wait: scontrol show licenses"),
    "InvalidAccount": ("its account does not exist, or you may not use it",
                       "CANCEL, and correct account in the profile: sacctmgr show associations user=$USER"),
    "InvalidQOS": ("its QOS does not exist, or you may not use it",
                   "CANCEL, and correct qos in the profile: sacctmgr show associations user=$USER"),
    "AccountNotAllowed": ("its account may not use this partition", "CANCEL, and choose another account or partition."),
    "QOSNotAllowed": ("its QOS may not be used in this partition", "CANCEL, and choose another qos or partition."),
    "BadConstraints": ("no node has all requested features",
                       "CANCEL, and correct constraint in the profile: sinfo -o '%f'"),
    "NodeDown": ("a node that it needs is down", "Wait until it is available: sinfo -R shows why."),
    "Cleaning": ("it was requeued, and its processes on its nodes are still ending", "Check again in a minute."),
    "MaxMemPerLimit": ("it requests more memory than a job may have", "CANCEL, and lower mem_gb_per_node."),
    "QOSUsageThreshold": ("its QOS does not let it start: its account has too little of its share left",
                          "Wait; or choose another qos in the profile. sshare shows the shares."),
    "AccountingPolicy": ("a limit of its account or QOS is reached",
                         "sacctmgr show associations user=$USER shows an account's limits, sacctmgr show qos a QOS's."),
    "Prolog": ("its nodes are being prepared", "Check again in a minute."),
}
"""squeue's reasons: what they mean, and what to do. CANCEL, RESUME, JOB and PARTITION are replaced."""


def explain_reason(reason: str) -> tuple[str, str]:
    """What a reason of squeue means, and what to do; for an unknown one, the reason itself."""
    plain = reason.partition(",")[0].strip("()").replace("_", " ").strip()
    detail = reason.partition(",")[2].strip()
    if plain in REASONS:
        meaning, remedy = REASONS[plain]
        return meaning + (f" ({detail})" if detail else ""), remedy
    if found := parse_limit(plain):
        return found.message, f"{'' if found.waits else 'CANCEL, then '}{found.remedy}.".replace("wait", "Wait", 1)
    return (f"SLURM's reason is {plain}" + (f" ({detail})" if detail else ""),
            "man squeue explains it, among its reason codes.")
