"""What SLURM's reasons for a job's state mean, and what to do."""

from __future__ import annotations

from drumbeat.launch.slurm.limits import parse_limit

RELEASE = "Release it: scontrol release JOB"
RELEASE_AND_REPORT = f"{RELEASE}. If it happens again, tell the administrators."
SHOW_LIMITS = ("Wait until some jobs end. sacctmgr show associations user=$USER shows the limits of an account, "
               "sacctmgr show qos those of a QOS.")

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
    "JobHoldMaxRequeue": ("it was requeued too often, and SLURM holds it", RELEASE),
    "launch failed requeued held": ("it could not be started on its node, and SLURM holds it", RELEASE_AND_REPORT),
    "launch failure limit exceeded requeued held": (
        "it could not be started on its nodes several times, and SLURM holds it", RELEASE_AND_REPORT),
    "user env retrieval failed requeued held": (
        "its node could not read your login environment, and SLURM holds it",
        f"{RELEASE}. If it happens again, remove --get-user-env or --export from the profile."),
    "job requeued in held state": ("it was requeued and held, by a user or by its exit code", RELEASE),
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
    "Nodes required for job are DOWN": (
        "all nodes that it could use are down, drained, or reserved for partitions of higher priority",
        "Wait: sinfo -R shows why nodes are down. Or choose another partition: sinfo lists them."),
    "ReqNodeNotAvail": ("a node that it needs is down, drained or reserved",
                        "Wait until it is available: sinfo -R shows why. If a maintenance reservation begins "
                        "before the job would end, a shorter time_minutes may fit before it."),
    "Reservation": ("its reservation has not started", "Wait: scontrol show reservation"),
    "ReservationDeleted": ("its reservation was deleted", "CANCEL, and submit without it."),
    "ReservationInvalid": ("its reservation cannot be used", "CANCEL, and correct reservation in the profile: "
                           "scontrol show reservation"),
    "Licenses": ("it waits for a license", "Wait: scontrol show licenses"),
    "InvalidAccount": ("its account does not exist, or you may not use it",
                       "CANCEL, and correct account in the profile: sacctmgr show associations user=$USER"),
    "InvalidQOS": ("its QOS does not exist, or you may not use it",
                   "CANCEL, and correct qos in the profile: sacctmgr show associations user=$USER"),
    "AccountNotAllowed": ("its account may not use this partition", "CANCEL, and choose another account or partition."),
    "QOSNotAllowed": ("its QOS may not be used in this partition", "CANCEL, and choose another qos or partition."),
    "BadConstraints": ("no node has all requested features",
                       "CANCEL, and correct constraint in the profile: sinfo -o '%f'"),
    "Constraints": ("no node with the requested features is available at the moment",
                    "Wait; or correct constraint in the profile: sinfo -o '%f %T'"),
    "NodeDown": ("a node that it needs is down", "Wait until it is available: sinfo -R shows why."),
    "Cleaning": ("it was requeued, and its processes on its nodes are still ending", "Check again in a minute."),
    "MaxMemPerLimit": ("it requests more memory than a job may have", "CANCEL, and lower mem_gb_per_node."),
    "QOSUsageThreshold": ("its QOS does not let it start: its account has too little of its share left",
                          "Wait; or choose another qos in the profile. sshare shows the shares."),
    "AccountingPolicy": ("a limit of its account or QOS is reached", SHOW_LIMITS),
    "AssociationJobLimit": ("the number of jobs of its account is limited", SHOW_LIMITS),
    "AssociationResourceLimit": ("a limit of its account is reached", SHOW_LIMITS),
    "AssociationTimeLimit": ("a time limit of its account is reached", SHOW_LIMITS),
    "QOSJobLimit": ("the number of jobs of its QOS is limited", SHOW_LIMITS),
    "QOSResourceLimit": ("a limit of its QOS is reached", SHOW_LIMITS),
    "QOSTimeLimit": ("a time limit of its QOS is reached", SHOW_LIMITS),
    "Prolog": ("its nodes are being prepared", "Check again in a minute."),
    "JobArrayTaskLimit": ("its job array runs as many tasks as it may at once", "CANCEL, and remove array from the "
                          "profile: a run is one job."),
    "DeadLine": ("it cannot end before its deadline", "CANCEL, then remove deadline from the profile."),
    "BurstBufferResources": ("it waits for space in the burst buffer", "Wait: scontrol show burst"),
    "BurstBufferStageIn": ("its files are being copied into the burst buffer", "Wait: scontrol show burst"),
    "BurstBufferOperation": ("an operation of the burst buffer failed", f"{RELEASE}; scontrol show burst shows more."),
    "MaxPoweredUpNodes": ("as many nodes as may be powered on are in use", "Wait until some jobs end."),
    "PowerNotAvail": ("the cluster has not enough electrical power left", "Wait until some jobs end."),
    "PowerReserved": ("it waits for electrical power that is reserved", "Wait: scontrol show reservation"),
    "NvidiaImexChannels": ("it waits for a channel for memory between the GPUs of several nodes (NVIDIA IMEX)",
                           "Wait until some jobs end."),
    "MpiPortsBusy": ("the ports that SLURM reserves for MPI are in use", "Wait until some jobs end."),
    "FedJobLock": ("the clusters of the federation are agreeing which of them runs it", "Check again in a minute."),
    "FrontEndDown": ("the front end node of its partition is down", "Wait: sinfo -R shows why."),
    "BlockFreeAction": ("the nodes that it needs are being freed", "Check again in a minute."),
    "BlockMaxError": ("the nodes that it needs have too many errors", "Tell the administrators."),
    "SchedDefer": ("it asked to start at once, and this cluster does not start jobs at once",
                   "CANCEL, and remove immediate from the profile."),
    "JobLaunchFailure": ("SLURM could not start it: its log file cannot be written on the node, or its folder is "
                         "missing there", "Check that the nodes see the run folder and the folder in which you typed "
                         "the command, then RESUME."),
    "NonZeroExitCode": ("its script ended with a code other than 0", "Read its log, then RESUME."),
    "RaisedSignal": ("its script was killed by a signal", "Read its log, then RESUME."),
    "OutOfMemory": ("it used more memory than it requested", "Request more memory in the profile, then RESUME."),
    "TimeLimit": ("its time limit was reached", "RESUME; with more time_minutes in the profile if it saved nothing."),
    "InactiveLimit": ("SLURM ended it because its commands did not respond", "RESUME."),
    "SystemFailure": ("a part of SLURM, a file system or the network failed", "RESUME; if it happens again, tell the "
                      "administrators."),
    "InvalidReason": ("SLURM does not know why", "Check again in a minute: scontrol show job JOB"),
    "InvaildReason": ("SLURM does not know why", "Check again in a minute: scontrol show job JOB"),
}
"""SLURM's reasons: what they mean, and what to do. CANCEL, RESUME, JOB and PARTITION are replaced. These are all that
SLURM 20.11 to 26.05 has (src/common/job_state_reason.c, and texts in src/slurmctld) besides the limits of accounts and
QOS (`slurm/limits.py`)."""


def explain_reason(reason: str) -> tuple[str, str]:
    """What a reason of squeue means, and what to do; for an unknown one, the reason itself."""
    plain = reason.partition(",")[0].strip("()").replace("_", " ").strip()
    detail = "" if " " in plain else reason.partition(",")[2].replace("_", " ").strip()  # else the rest of a sentence
    if plain in REASONS:
        meaning, remedy = REASONS[plain]
        return meaning + (f" ({detail})" if detail else ""), remedy
    if found := parse_limit(plain):
        return found.message, f"{'' if found.waits else 'CANCEL, then '}{found.remedy}.".replace("wait", "Wait", 1)
    return (f"SLURM's reason is {plain}" + (f" ({detail})" if detail else ""),
            "man squeue explains it, among its reason codes.")
