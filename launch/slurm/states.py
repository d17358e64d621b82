"""What the states of a job in SLURM mean, and what to do: while it is in the queue, and after it has ended.

They are all states and flags that SLURM 20.11 to 26.05 has (job_state_codes.html, src/common/slurm_protocol_defs.c).
"""

from __future__ import annotations

WAIT = "Wait: it continues by itself."
RELEASE = "Release it: scontrol release JOB"
AGAIN = "Check again in a minute."

QUEUED: dict[str, tuple[str, str]] = {
    "PENDING": ("it waits in the queue", WAIT),
    "RUNNING": ("it is running normally", "Read its log: LOGS"),
    "CONFIGURING": ("its nodes are booting, or their prolog is running", "Wait some minutes. If it stays so: sinfo -R "
                    "shows nodes that do not come up."),
    "POWER_UP_NODE": ("its nodes are being powered on", "Wait some minutes. If it stays so: sinfo -R shows nodes that "
                      "do not come up."),
    "COMPLETING": ("it has ended, and its nodes are being cleaned up", "Check again in a minute. If it stays so, tell "
                   "the administrators: a process on a node cannot be killed."),
    "SUSPENDED": ("SLURM has suspended it: its processes are stopped, and its nodes may run other jobs",
                  "Wait: it continues where it was as soon as SLURM or an administrator resumes it."),
    "STOPPED": ("its processes are stopped, and it keeps its nodes", "Continue it: scancel --signal=CONT JOB"),
    "EXPEDITING": ("a node failed, and it starts again before all other jobs", WAIT),
    "REQUEUED": ("it is being requeued", AGAIN),
    "REQUEUED_CRON": ("it is being requeued", AGAIN),
    "REQUEUE_FED": ("it is being requeued on another cluster of the federation", AGAIN),
    "REQUEUE_HOLD": ("it was requeued, and SLURM holds it", RELEASE),
    "SPECIAL_EXIT": ("it was requeued because of its exit code, and SLURM holds it", RELEASE),
    "RESV_DEL_HOLD": ("its reservation was deleted, and SLURM holds it", "CANCEL, and submit without the reservation; "
                      "or use another: scontrol update jobid=JOB reservation=NAME, then scontrol release JOB"),
    "RESIZING": ("the number of its nodes is being changed", AGAIN),
    "STAGE_OUT": ("it has ended, and its files are being copied out of the burst buffer", AGAIN),
    "SIGNALING": ("SLURM is sending it a signal", AGAIN),
    "UPDATE_DB": ("SLURM is writing it to the accounting database", AGAIN),
    "LAUNCH_FAILED": ("it could not be started on its nodes", "RESUME; if it happens again, tell the administrators."),
    "RECONFIG_FAIL": ("its nodes could not be configured", "RESUME; if it happens again, tell the administrators."),
    "UNINITIALISED": ("SLURM is still reading it", AGAIN),
}
"""States of jobs in the queue: what they mean, and what to do. CANCEL, RESUME, LOGS
and JOB are replaced."""

ENDED: dict[str, tuple[str, str]] = {
    "COMPLETED": ("its script ended with code 0", ""),
    "FAILED": ("its script failed", ""),
    "CANCELLED": ("it was cancelled", ""),
    "TIMEOUT": ("its time limit was reached", "give it more time_minutes in the profile"),
    "NODE_FAIL": ("one of its nodes failed", ""),
    "PREEMPTED": ("it was preempted, and SLURM may not requeue it", ""),
    "BOOT_FAIL": ("its nodes could not be booted", ""),
    "DEADLINE": ("it could not start before its deadline", "remove deadline from the profile"),
    "OUT_OF_MEMORY": ("it used more memory than it requested", "request more memory in the profile"),
    "REVOKED": ("another cluster of the federation runs it", "squeue --federation --me shows it"),
}
"""States of jobs that have ended: what they mean, and what to do besides resuming the run."""


def explain_state(state: str) -> tuple[str, str]:
    """What the state of a job in the queue means, and what to do; for an unknown one, the state itself."""
    return QUEUED.get(state, (f"SLURM's state is {state}", "man squeue explains it, among its job state codes."))
