"""The verdict of an attempt: how it ended and what happens next, from the run's folder and the state of the SLURM job.

The restart budget is computed from the folder, too, so it holds across requeues: a run is restarted as long as it makes
progress. It is given up after `launch.restarts` consecutive failures without a newer checkpoint, or when the same
exception is raised at the same step again.
"""

from __future__ import annotations

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import newest_checkpoint
from drumbeat.configs.run.records import MORE_NODES, Next, Saved, StopRequest, Verdict
from drumbeat.configs.text_fields import clock
from drumbeat.launch.attempts import blame
from drumbeat.launch.attempts.cause import cause

TIME_LIMIT, TERMINATED = "time limit", "terminated"
"""Reasons for a stop that nobody requested: the job's time limit is near; SIGTERM."""
SUSPENDED = "suspended"
"""The reason of a failure that does not count: the connections of ranks time out while SLURM suspends their job."""

LEFT_OUT = "nodes left out"
"""The reason of a failure that does not count, because the next attempt goes on without the nodes that failed."""
UNCOUNTED = (SUSPENDED, LEFT_OUT)

IDLE_GPU = "idle GPU"
FOR_GOOD = ("stopped", "cancelled", IDLE_GPU)
"""Reasons for a stop after which the run is not queued again, whatever SLURM does with its job."""

REASONS = {"stopped": "as asked", TIME_LIMIT: "the job's time limit is near", TERMINATED: "SIGTERM",
           "preempted": "preempted", "requeued": "SLURM requeued the job", "cancelled": "the job was cancelled",
           "node failure": "a node failed", MORE_NODES: "more nodes can take part",
           IDLE_GPU: "a GPU was idle for watchdog.idle_gpu_minutes"}
"""The texts of the reasons."""


def verdict_of(run: RunDir, attempt: Attempt, *, restarts: int, slurm: str = "", queue: bool = True,
               suspended: float = 0.0, spare: int = 0) -> Verdict:
    """The verdict of an attempt that has ended. `slurm` is why SLURM ended the job (`SlurmJob.why_terminated`), ''
    without SLURM; `queue` is whether the run can be queued again, which it cannot without SLURM, and not from the
    user's own allocation; `suspended` is for how many seconds the job was suspended in this attempt; `spare` is
    with how many nodes fewer the run can go on: a verdict that does so has the places of the others in `left_out`."""
    saved, request, step = Saved.read(attempt.saved), StopRequest.read(attempt.stop), newest_checkpoint(run)
    if saved and saved.state == "finished":
        return Verdict(outcome="finished", next="leave", message="finished", step=step)
    newest = run.newest_attempt()
    if newest is not None and newest.number > attempt.number:
        message = f"attempt {newest.number}, of another job, has taken over this run"
        return Verdict(outcome="superseded", next="leave", message=message, step=step)
    if saved and saved.continues and not request:
        message = f"step {saved.step:,} is reached, from which on the config is another one"
        return Verdict(outcome="stopped", next="restart", message=message, step=step)

    past = consecutive_failures(run, attempt, step)
    spent = f"; given up: {len(past) + 1} times in a row without a newer checkpoint" if len(past) >= restarts else ""
    last = f"the last checkpoint is at step {step}" if step >= 0 else "there is no checkpoint"
    if request:
        reason = request.reason
        if reason == TERMINATED or slurm == "cancelled":
            reason = slurm or reason
        message = f"stopped at step {saved.step}: {REASONS.get(reason, reason)}" if saved else (
            f"stopped without saving: {_too_late(attempt) if reason == TIME_LIMIT else REASONS.get(reason, reason)}; "
            f"{last}")
        if not saved and attempt.errors():
            message += f"; {cause(attempt).message}"
        following: Next = "requeue" if slurm and reason not in FOR_GOOD else "leave"
        if reason == MORE_NODES:
            following = "restart"
        if following == "requeue" and not queue:
            following, message = "leave", f"{message}; resume it in another allocation, or with --slurm"
        if following == "requeue" and reason == TIME_LIMIT and spent:
            message += f"{spent}; give it more time_minutes in the profile"
            return Verdict(outcome="stopped", next="give up", message=message, step=step, reason=reason)
        return Verdict(outcome="stopped", next=following, message=message, step=step, reason=reason)

    failure = cause(attempt)
    if suspended and not failure.error:
        return Verdict(outcome="failed", next="restart", step=step, reason=SUSPENDED, rank=failure.rank, message=(
            f"the job was suspended for {clock(suspended)}, after which a rank did not continue: {failure.message}; "
            f"{last}"))
    bad, cleared = failure.bad_nodes, blame.wrongly(run.attempt(attempt.number - 1), attempt) if past else ""
    if cleared:
        bad, spent = {}, f"; given up: a check failed on {cleared}, too, so it is rather the check, or a file server"
    elif failure.final:
        spent = "; not retried: it would fail the same way"
    elif failure.error and not (bad and queue) and any(verdict.error == failure.error for verdict in past):
        spent = "; given up: the same error again"
    again = [name for name in bad if any(name in verdict.bad_nodes for verdict in past)]
    lost = blame.lost(attempt, again) if spare and not (cleared or failure.final) else {}
    if 0 < len(lost) <= spare:
        return Verdict(outcome="failed", next="restart", step=step, reason=LEFT_OUT, rank=failure.rank,
                       error=failure.error, bad_nodes=bad, left_out=tuple(lost),
                       message=f"{failure.message}; {last}; the run goes on without {' and '.join(lost.values())}")
    elsewhere = queue and (failure.elsewhere or bool(again))
    following = "requeue" if elsewhere else "restart"
    without = f"; queued again, without {' and '.join(bad)} if possible" if elsewhere and not spent else ""
    return Verdict(outcome="failed", next="give up" if spent else following, step=step, rank=failure.rank,
                   error=failure.error, bad_nodes=bad, cleared=cleared,
                   message=f"{failure.message}; {last}{spent}{without}")


def consecutive_failures(run: RunDir, attempt: Attempt, step: int) -> list[Verdict]:
    """The verdicts of the attempts just before this one that failed and after which no newer checkpoint was saved."""
    found: list[Verdict] = []
    for number in range(attempt.number - 1, -1, -1):
        verdict = Verdict.read(run.attempt(number).verdict)
        if verdict is None or verdict.step != step or not _counts_as_failure(verdict) or verdict.next == "give up":
            break
        found.append(verdict)
    return found


def _counts_as_failure(verdict: Verdict) -> bool:
    """Whether it counts against the restart budget until a newer checkpoint is saved."""
    return (verdict.outcome == "failed" and verdict.reason not in UNCOUNTED) or verdict.reason == TIME_LIMIT


def _too_late(attempt: Attempt) -> str:
    """The reason of a stop without a checkpoint."""
    what = "next checkpoint" if attempt.first_step.exists() else "first step"
    return f"the job's time limit came before its {what}"
