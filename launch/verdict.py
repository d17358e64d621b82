"""What an attempt came to, and what is next: judged from the run's folder, and from what SLURM says of the job.

The budget of restarts is read from the folder as well, so it also holds across requeues: a run goes on as long as it
gets ahead, and is given up after so many failures in a row without a newer checkpoint, or when the same exception comes
at the same step again.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from configs.rundir import Attempt, RunDir, State, read_json, write_json

Outcome = Literal["finished", "stopped", "failed", "superseded"]
Next = Literal["leave", "restart", "requeue", "give up"]

TIME_LIMIT, TERMINATED = "time limit", "terminated"
"""Reasons to stop that are not a person's: the job's time is nearly up; SIGTERM."""

REASONS = {"stopped": "as asked", TIME_LIMIT: "the job's time limit is near", TERMINATED: "SIGTERM",
           "preempted": "preempted", "requeued": "SLURM queued the job again", "cancelled": "the job was cancelled",
           "node failure": "a node failed"}
"""Reasons in words."""

CONSEQUENCES = re.compile(r"closed by peer|reset by peer|Broken pipe|Socket (closed|Timeout)|remote process exited|"
                          r"NCCL communicator was aborted|another rank's loss")
"""Messages of ranks that fail because another one did."""

MEANINGS = {
    r"OutOfMemoryError": "ran out of GPU memory",
    r"can't allocate memory|MemoryError|Cannot allocate memory": "ran out of memory",
    r"^RuntimeError: DataLoader worker \(pid": "lost a loader worker",
    r"^SaveError": "could not save",
    r"No space left": "found the disk full",
    r"CUDA error|NCCL error|ncclSystemError": "failed on its GPU or network",
}
"""What an exception means, in words, by its type and message."""

WAITS = re.compile(r"distributed_c10d\.py|in _engine_run_backward")
"""In the stacks of a rank that waits for others: in a collective, or in the backward pass, which sums gradients."""

ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)
"""In torchrun's report."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The end of an attempt, as `verdict.json` holds it."""

    outcome: Outcome
    next: Next
    words: str
    """For a reader, one line."""
    step: int
    """Of the newest good checkpoint; -1 where there is none."""
    reason: str = ""
    """Of a stop."""
    rank: int = -1
    """The rank that a failure began with, whose log tells most; -1 where it is not known."""
    error: str = ""
    """The kind, step and rank of an exception: what makes two failures the same."""

    @classmethod
    def read(cls, attempt: Attempt) -> Verdict | None:
        """None where the attempt goes on, or all its launchers were killed."""
        values = read_json(attempt.verdict)
        return cls(**values) if values else None

    def write(self, attempt: Attempt) -> None:
        write_json(attempt.verdict, asdict(self))

    @property
    def state(self) -> State:
        """The state of the run after it."""
        if self.next == "restart":
            return "running"
        if self.next == "requeue":
            return "preempted"
        if self.next == "give up":
            return "failed"
        return "finished" if self.outcome == "finished" else "cancelled" if self.reason == "cancelled" else "stopped"

    @property
    def costs(self) -> bool:
        """Whether it counts against the budget of restarts, as long as no newer checkpoint is made."""
        return self.outcome == "failed" or self.reason == TIME_LIMIT


def judge(run: RunDir, attempt: Attempt, *, restarts: int, slurm: str = "", queue: bool = True) -> Verdict:
    """The verdict of an attempt that is over. `slurm` says what SLURM has done to the job (`Allocation.fate`), '' where
    there is no SLURM to queue it again; `queue` whether that may be: not where the job is the user's own."""
    saved, step = read_json(attempt.saved), newest_checkpoint(run)
    if saved.get("state") == "finished":
        return Verdict(outcome="finished", next="leave", words="finished", step=step)
    newest = run.newest_attempt()
    if newest is not None and newest.number > attempt.number:
        words = f"attempt {newest.number}, of another job, has taken over this run"
        return Verdict(outcome="superseded", next="leave", words=words, step=step)

    past = in_a_row(run, attempt, step)
    spent = f"; given up: {len(past) + 1} times in a row without a newer checkpoint" if len(past) >= restarts else ""
    last = f"the last checkpoint is of step {step}" if step >= 0 else "there is no checkpoint"
    if attempt.stop.exists():
        reason = str(read_json(attempt.stop).get("reason"))
        if reason == TERMINATED or slurm == "cancelled":
            reason = slurm or reason
        words = f"stopped at step {saved['step']}: {REASONS.get(reason, reason)}" if saved else (
            f"stopped without a save: {REASONS.get(reason, reason)}; {last}")
        if not saved and attempt.errors():
            words += f"; {cause(attempt).words}"
        again: Next = "requeue" if slurm and reason not in ("stopped", "cancelled") else "leave"
        if again == "requeue" and not queue:
            again, words = "leave", f"{words}; to go on, resume it in another allocation, or with --slurm"
        if again == "requeue" and reason == TIME_LIMIT and spent:
            return Verdict(outcome="stopped", next="give up", words=words + spent, step=step, reason=reason)
        return Verdict(outcome="stopped", next=again, words=words, step=step, reason=reason)

    why = cause(attempt)
    if why.final:
        spent = "; not tried again: it would fail the same way"
    elif why.error and any(verdict.error == why.error for verdict in past):
        spent = "; given up: the same again"
    return Verdict(outcome="failed", next="give up" if spent else "restart", words=f"{why.words}; {last}{spent}",
                   step=step, rank=why.rank, error=why.error)


def in_a_row(run: RunDir, attempt: Attempt, step: int) -> list[Verdict]:
    """The verdicts just before this attempt that cost something and since which no newer checkpoint was made."""
    found: list[Verdict] = []
    for number in range(attempt.number - 1, -1, -1):
        verdict = Verdict.read(run.attempt(number))
        if verdict is None or verdict.step != step or not verdict.costs or verdict.next == "give up":
            break
        found.append(verdict)
    return found


@dataclass(frozen=True)
class Cause:
    """What made an attempt fail."""

    words: str
    """Which rank on which node, what, at which step."""
    rank: int = -1
    error: str = ""
    """As in a verdict, both."""
    final: bool = False
    """Whether it is a mistake of the user's, which no restart mends."""


def cause(attempt: Attempt) -> Cause:
    """What began it: a rank that was killed, else the first exception that is not about another rank that has gone."""
    causes, errors = list(root_causes(attempt)), attempt.errors()
    for down in map(read_json, sorted(attempt.path.glob("node*.down.json"))):
        if down.get("words"):
            return Cause(down["words"])  # the ranks did not even begin
    if hung := hang(attempt):
        return hung
    own = [error for error in errors if not CONSEQUENCES.search(error["message"])]
    at = f" at step {max(error['step'] for error in errors)}" if errors else ""
    for host, rank, code in causes:
        if -code in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS) and rank not in [error["rank"] for error in own]:
            return Cause(f"rank {rank} on {host} {ended_by(code)}{at}", rank)
    for error in own:
        lines = str(error["message"]).strip().splitlines() or [""]
        kind = f"{error['type']} at step {error['step']} of rank {error['rank']}"
        if error.get("final"):
            return Cause(lines[0].removeprefix("error: "), error["rank"], kind, final=True)
        said = f"{error['type']}: {lines[0][:300]}"
        what = next((words for pattern, words in MEANINGS.items() if re.search(pattern, said)), "failed")
        return Cause(f"rank {error['rank']} on {error['node']} {what} at step {error['step']}: {said}", error["rank"],
                     kind)
    silent = [rank for path in attempt.path.glob("rank*.log")
              if not attempt.error(rank := int(path.stem.removeprefix("rank"))).exists()]
    if errors and len(silent) == 1:  # the others say that somebody has gone, and this one could not say anything
        return Cause(f"rank {silent[0]} {ended_by(-signal.SIGKILL)}{at}", silent[0])
    for host, rank, code in sorted(causes, key=lambda cause: cause[2]):
        return Cause(f"rank {rank} on {host} {ended_by(code)}{at}", rank)
    for down in map(read_json, sorted(attempt.path.glob("node*.down.json"))):
        if down.get("code"):
            return Cause(f"torchrun on {down['host']} {ended_by(down['code'])}{at}")
    return Cause(f"the ranks ended without a result{at}")


def hang(attempt: Attempt) -> Cause | None:
    """Which rank hung and where, if the stacks of ranks were written down: the one whose stacks show no wait for other
    ranks. Where all wait, or several do not, who began it is not known."""
    stacks = {int(path.stem.removeprefix("rank")): text for path in attempt.path.glob("rank*.stacks")
              if (text := path.read_text(errors="replace"))}
    if not stacks:
        return None
    alone = [rank for rank, text in stacks.items() if not WAITS.search(text)]
    if len(alone) != 1:
        return Cause("the ranks hung, and which of them first is not known; their stacks are in "
                     f"{attempt.path.name}/rank*.stacks")
    places = re.findall(r'File "(.+)", line (\d+) in (.+)', stacks[alone[0]].rpartition("Thread")[2])
    own = [place for place in places if "site-packages" not in place[0]]
    at = "".join(f" in {name} ({Path(file).name}:{line})" for file, line, name in own[:1])
    others = "; the others waited for it" if len(stacks) > 1 else ""
    return Cause(f"rank {alone[0]} hung{at}{others}; its stacks are in {attempt.path.name}/rank{alone[0]}.stacks",
                 alone[0])


def root_causes(attempt: Attempt) -> Iterator[tuple[str, int, int]]:
    """Node, rank and exit code of the first failure on each node, as torchrun reports it."""
    for log in sorted(attempt.path.glob("node*.log")):
        number = int(log.stem.removeprefix("node"))
        if found := ROOT_CAUSE.search(log.read_text(errors="replace")):
            yield str(read_json(attempt.down(number)).get("host", f"node {number}")), int(found[1]), int(found[2])


def ended_by(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name}{'; out of memory?' if name == 'SIGKILL' else ''})"


def newest_checkpoint(run: RunDir) -> int:
    """The step of the newest complete checkpoint; -1 where there is none."""
    manifests = run.checkpoints.glob("step-*/manifest.json")
    return max((int(path.parent.name.partition("-")[2]) for path in manifests), default=-1)
