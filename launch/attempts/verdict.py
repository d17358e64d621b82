"""What an attempt came to, and what is next: judged from the run's folder, and from what SLURM says of the job.

The budget of restarts is read from the folder as well, so it also holds across requeues: a run goes on as long as it
gets ahead, and is given up after so many failures in a row without a newer checkpoint, or when the same exception comes
at the same step again.
"""

from __future__ import annotations

from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.manifest import newest_checkpoint
from drumbeat.configs.run.records import Next, Saved, StopRequest, Verdict
from drumbeat.launch.attempts.cause import cause

TIME_LIMIT, TERMINATED = "time limit", "terminated"
"""Reasons to stop that are not a person's: the job's time is nearly up; SIGTERM."""

REASONS = {"stopped": "as asked", TIME_LIMIT: "the job's time limit is near", TERMINATED: "SIGTERM",
           "preempted": "preempted", "requeued": "SLURM queued the job again", "cancelled": "the job was cancelled",
           "node failure": "a node failed"}
"""Reasons in words."""


def judge(run: RunDir, attempt: Attempt, *, restarts: int, slurm: str = "", queue: bool = True) -> Verdict:
    """The verdict of an attempt that is over. `slurm` says what SLURM has done to the job (`SlurmJob.fate`), '' where
    there is no SLURM to queue it again; `queue` whether that may be: not where the job is the user's own."""
    saved, asked, step = Saved.read(attempt.saved), StopRequest.read(attempt.stop), newest_checkpoint(run)
    if saved and saved.state == "finished":
        return Verdict(outcome="finished", next="leave", message="finished", step=step)
    newest = run.newest_attempt()
    if newest is not None and newest.number > attempt.number:
        words = f"attempt {newest.number}, of another job, has taken over this run"
        return Verdict(outcome="superseded", next="leave", message=words, step=step)

    past = in_a_row(run, attempt, step)
    spent = f"; given up: {len(past) + 1} times in a row without a newer checkpoint" if len(past) >= restarts else ""
    last = f"the last checkpoint is of step {step}" if step >= 0 else "there is no checkpoint"
    if asked:
        reason = asked.reason
        if reason == TERMINATED or slurm == "cancelled":
            reason = slurm or reason
        words = f"stopped at step {saved.step}: {REASONS.get(reason, reason)}" if saved else (
            f"stopped without a save: {REASONS.get(reason, reason)}; {last}")
        if not saved and attempt.errors():
            words += f"; {cause(attempt).words}"
        again: Next = "requeue" if slurm and reason not in ("stopped", "cancelled") else "leave"
        if again == "requeue" and not queue:
            again, words = "leave", f"{words}; to go on, resume it in another allocation, or with --slurm"
        if again == "requeue" and reason == TIME_LIMIT and spent:
            return Verdict(outcome="stopped", next="give up", message=words + spent, step=step, reason=reason)
        return Verdict(outcome="stopped", next=again, message=words, step=step, reason=reason)

    why = cause(attempt)
    if why.final:
        spent = "; not tried again: it would fail the same way"
    elif why.error and any(verdict.error == why.error for verdict in past):
        spent = "; given up: the same again"
    return Verdict(outcome="failed", next="give up" if spent else "restart", message=f"{why.words}; {last}{spent}",
                   step=step, rank=why.rank, error=why.error)


def in_a_row(run: RunDir, attempt: Attempt, step: int) -> list[Verdict]:
    """The verdicts just before this attempt that cost something and since which no newer checkpoint was made."""
    found: list[Verdict] = []
    for number in range(attempt.number - 1, -1, -1):
        verdict = Verdict.read(run.attempt(number).verdict)
        if verdict is None or verdict.step != step or not _costs(verdict) or verdict.next == "give up":
            break
        found.append(verdict)
    return found


def _costs(verdict: Verdict) -> bool:
    """Whether it counts against the budget of restarts, as long as no newer checkpoint is made."""
    return verdict.outcome == "failed" or verdict.reason == TIME_LIMIT
