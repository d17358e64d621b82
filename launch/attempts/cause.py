"""What made an attempt fail: which rank on which node, what, at which step; from the files of the attempt's folder."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.records import NodeDown, RankError
from drumbeat.launch.attempts.hang import find_hang, stands
from drumbeat.launch.attempts.meanings import CONSEQUENCES, abort_message, explain

ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)
"""In torchrun's report."""


@dataclass(frozen=True)
class Cause:
    """What made an attempt fail."""

    words: str
    """Which rank on which node, what, at which step."""
    rank: int = -1
    """-1 where it is not known."""
    error: str = ""
    """The kind, step and rank of an exception: what makes two failures the same."""
    final: bool = False
    """Whether it is a mistake of the user's, which no restart mends."""


def cause(attempt: Attempt) -> Cause:
    """What began it: a rank that hung or was killed, else the first error that is not about another rank that has gone,
    else the most that is known."""
    downs = list(filter(None, map(NodeDown.read, sorted(attempt.path.glob("node*.down.json")))))
    for down in downs:
        if down.message:
            return Cause(down.message)  # the ranks did not even begin
    if hang := find_hang(attempt):
        return Cause(hang.words, hang.rank)
    causes = list(root_causes(attempt))
    errors = [*attempt.errors(), *aborts(attempt, causes)]
    own = [error for error in errors if not CONSEQUENCES.match(f"{error.type}: {error.message}")]
    at = f" at step {max(error.step for error in errors)}" if errors else ""
    for host, rank, code in causes:
        if -code in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS) and rank not in [error.rank for error in own]:
            return Cause(f"rank {rank} on {host} {ended_by(code)}{at}", rank)
    if own:
        return of_error(own[0])
    heard = {error.rank for error in errors}
    silent = {int(path.stem.removeprefix("rank")) for path in attempt.path.glob("rank*.log")} - heard
    if errors and len(silent) == 1:  # the others say that somebody has gone, and this one could not say anything
        return Cause(f"rank {min(silent)} {ended_by(-signal.SIGKILL)}{at}", min(silent))
    for host, rank, code in sorted(causes, key=lambda cause: cause[2]):
        if code < 0 and rank not in heard:
            return Cause(f"rank {rank} on {host} {ended_by(code)}{at}", rank)
    if errors:
        return lost_contact(errors[0])
    for host, rank, code in causes:
        return Cause(f"rank {rank} on {host} {ended_by(code)}{at}", rank)
    for down in downs:
        if down.exit_code:
            return Cause(f"torchrun on {down.host} {ended_by(down.exit_code)}{at}")
    return Cause(f"the ranks ended without a result{at}")


def of_error(error: RankError) -> Cause:
    """A rank's error, in words."""
    kind = f"{error.type} at step {error.step} of rank {error.rank}"
    if error.user_error:
        first = (error.message.strip().splitlines() or [""])[0]
        return Cause(first.removeprefix("error: "), error.rank, kind, final=True)
    what, said, fix = explain(error.type, error.message)
    return Cause(f"{who(error)} {what} at step {error.step}: {said}{f'; {fix}' if fix else ''}", error.rank, kind)


def lost_contact(error: RankError) -> Cause:
    """All errors are about other ranks, so nobody knows more than the first to notice."""
    _, said, _ = explain(error.type, error.message)
    return Cause(f"{who(error)} lost the other ranks at step {error.step}: {said}; look at the logs of the others, "
                 "and at the network", error.rank)


def who(error: RankError) -> str:
    """The rank of an error, and its node where that is known."""
    return f"rank {error.rank}" + (f" on {error.node}" if error.node else "")


def aborts(attempt: Attempt, causes: list[tuple[str, int, int]]) -> Iterator[RankError]:
    """Errors in threads of torch's, which ended their rank by SIGABRT, such as an error of CUDA that torch's watchdog
    for NCCL was the first to notice. They stand in the rank's log, and nowhere else."""
    hosts, steps = {rank: host for host, rank, _ in causes}, stands(attempt)
    for path in sorted(attempt.path.glob("rank*.log")):
        rank = int(path.stem.removeprefix("rank"))
        if not attempt.error(rank).exists() and (message := abort_message(path)):
            yield RankError(rank=rank, node=hosts.get(rank, ""), type="DistBackendError", message=message,
                            step=max(0, steps[rank].step) if rank in steps else 0)


def root_causes(attempt: Attempt) -> Iterator[tuple[str, int, int]]:
    """Node, rank and exit code of the first failure on each node, as torchrun reports it."""
    for log in sorted(attempt.path.glob("node*.log")):
        number = int(log.stem.removeprefix("node"))
        if found := ROOT_CAUSE.search(log.read_text(errors="replace")):
            down = NodeDown.read(attempt.node_down(number))
            yield down.host if down else f"node {number}", int(found[1]), int(found[2])


def ended_by(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name}{'; out of memory?' if name == 'SIGKILL' else ''})"
