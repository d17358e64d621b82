"""The cause of a failed attempt: which rank on which node, which error, at which step; from the attempt's folder."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from drumbeat.configs.errors import headline
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.records import NodeDown, RankError
from drumbeat.launch.attempts import blame
from drumbeat.launch.attempts.hang import find_hang, positions
from drumbeat.launch.attempts.logs import end_of, numbered
from drumbeat.launch.attempts.meanings import CONSEQUENCES, abort_message, explain, last_error

ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)
"""The root cause in torchrun's report."""
SHOWN = 3
"""Nodes that a message names."""


@dataclass(frozen=True)
class Cause:
    """The cause of a failed attempt."""

    message: str
    """Which rank on which node, which error, at which step."""
    rank: int = -1
    """-1 if it is unknown."""
    error: str = ""
    """The type, step and rank of an exception: two failures with the same value are the same failure."""
    final: bool = False
    """Whether it is a mistake of the user, which no restart fixes."""
    bad_nodes: dict[str, str] = field(default_factory=dict)
    """The nodes that failed for a reason of the machine, each with the reason."""
    elsewhere: bool = False
    """Whether another attempt can only succeed without these nodes."""


def cause(attempt: Attempt) -> Cause:
    """The first failure: a rank that hung or was killed, otherwise the first error that is not a consequence of another
    rank's failure, otherwise whatever is known."""
    downs = blame.reports(attempt)
    if checked := [down for down in downs.values() if down.check]:
        return cause_of_checks(attempt, checked)
    for down in downs.values():
        if down.message:
            return Cause(down.message, bad_nodes=blame.unreachable(attempt))  # the ranks did not start
    if hang := find_hang(attempt):
        return Cause(hang.message, hang.rank)
    causes = list(root_causes(attempt))
    errors = [*attempt.errors(), *aborts(attempt, causes)]
    own = [error for error in errors if not CONSEQUENCES.match(f"{error.type}: {error.message}")]
    at = f" at step {max(error.step for error in errors)}" if errors else ""
    for host, rank, code in causes:
        if -code in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS) and rank not in [error.rank for error in own]:
            return Cause(f"rank {rank} on {host} {exit_text(code)}{at}", rank)
    if own:
        return replace(of_error(own[0]), bad_nodes=blame.broken(own))
    reported = {error.rank for error in errors}
    silent = {rank for rank, _ in numbered(attempt.path, "rank", ".log")} - reported
    if errors and len(silent) == 1:  # the others report a lost peer, and this rank could not report anything
        return Cause(f"rank {min(silent)} {exit_text(-signal.SIGKILL)}{at}", min(silent))
    for host, rank, code in sorted(causes, key=lambda cause: cause[2]):
        if code < 0 and rank not in reported:
            return Cause(f"rank {rank} on {host} {exit_text(code)}{at}", rank)
    if errors:
        return cause_of_lost_contact(errors[0])
    for host, rank, code in causes:
        return Cause(f"rank {rank} on {host} {exit_text(code)}{at}", rank)
    for node, down in downs.items():
        if down.exit_code:
            error = last_error(attempt.node_log(node))
            return Cause(f"torchrun on {down.host} {exit_text(down.exit_code)}{at}{error and f': {error}'}")
    return Cause(f"the ranks ended without a result{at}")


def cause_of_checks(attempt: Attempt, found: list[NodeDown]) -> Cause:
    """The cause if checks found something on nodes before the ranks started."""
    bad = blame.checked(attempt, found)
    more = f"; and {len(found) - SHOWN} more nodes" if len(found) > SHOWN else ""
    return Cause("; ".join(down.message for down in found[:SHOWN]) + more, bad_nodes=bad, elsewhere=bool(bad),
                 final=blame.is_everywhere(attempt, found) and all(down.check == "missing" for down in found))


def of_error(error: RankError) -> Cause:
    """The cause for an error of a rank."""
    kind = f"{error.type} at step {error.step} of rank {error.rank}"
    if error.user_error:
        return Cause(headline(error.message), error.rank, kind, final=True)
    what, line, fix = explain(error.type, error.message, error.traceback)
    return Cause(f"{who(error)} {what} at step {error.step}: {line}{f'; {fix}' if fix else ''}", error.rank, kind)


def cause_of_lost_contact(error: RankError) -> Cause:
    """The cause if all errors are about other ranks: the first rank that noticed knows as much as any."""
    _, line, _ = explain(error.type, error.message)
    return Cause(f"{who(error)} lost the connection to the other ranks at step {error.step}: {line}; read their logs "
                 "and check the network", error.rank)


def who(error: RankError) -> str:
    """The rank of an error, and its node if it is known."""
    return f"rank {error.rank}" + (f" on {error.node}" if error.node else "")


def aborts(attempt: Attempt, causes: list[tuple[str, int, int]]) -> Iterator[RankError]:
    """Errors in threads of torch that ended their rank with SIGABRT, such as a CUDA error that torch's NCCL watchdog
    noticed first. They are only in the rank's log."""
    hosts, steps = {rank: host for host, rank, _ in causes}, positions(attempt)
    for rank, path in numbered(attempt.path, "rank", ".log"):
        if not attempt.error(rank).exists() and (message := abort_message(path)):
            yield RankError(rank=rank, node=hosts.get(rank, ""), type="DistBackendError", message=message,
                            step=max(0, steps[rank].step) if rank in steps else 0)


def root_causes(attempt: Attempt) -> Iterator[tuple[str, int, int]]:
    """Node, rank and exit code of the first failure on each node, as torchrun reports it."""
    for number, log in numbered(attempt.path, "node", ".log"):
        if found := ROOT_CAUSE.search(end_of(log)):
            down = NodeDown.read(attempt.node_down(number))
            yield down.host if down else f"node {number}", int(found[1]), int(found[2])


def exit_text(code: int) -> str:
    """An exit code as text."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name}{'; out of memory?' if name == 'SIGKILL' else ''})"
