"""`drumbeat replay RUN --step S`: computes steps of a run again, and says whether software or machine did it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Job, NodeUp
from drumbeat.configs.run.step_log import Step, StepLog
from drumbeat.configs.run.versions import LABELS, AttemptVersions, Versions
from drumbeat.launch.replay.scratch import Interval, compute, debug, interval, scratch

LABEL = 11
"""The width of the labels."""

REPRODUCED = "the software did it: the same code, config and samples give the same numbers again"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The first step in which a replay differs from the log."""

    step: int
    logged: Step
    replayed: Step

    @property
    def ranks(self) -> list[int]:
        """The ranks that computed something else before the gradients were averaged; empty if none did."""
        if not self.logged.ranks:
            return [0]
        return [rank for rank, (one, other) in enumerate(zip(self.logged.ranks, self.replayed.ranks, strict=True))
                if one != other]


def replay(run: RunDir, step: int) -> int:
    """Computes the steps up to `step` again, from the nearest checkpoint, and compares each with the log. Prints what
    it found. Returns 0 if all are equal, otherwise 1. Raises `RunError`."""
    log = StepLog.read(run)
    work = interval(run, step, log)
    print(hang("replay     ", work.text), flush=True)
    with ExitStack() as stack:
        first = stack.enter_context(scratch(work))
        again = compute(first)
        found = first_difference(work, log, again)
        if found is None:
            steps = "the step is" if step == work.start + 1 else f"all {step - work.start:,} steps are"
            print(hang("log        ", f"{steps} equal to it, to the bit"))
            print(_row(step, again.step(step)))
            print(hang("verdict    ", REPRODUCED))
            return 0
        print(hang("log        ", f"step {found.step:,} differs from it{_equal_before(work, found)}"))
        print(f"{_row(found.step, found.logged)} (log)\n{_row(found.step, found.replayed)} (replay)", flush=True)
        work = interval(run, found.step, log)  # on as many ranks as that step had
        second = compute(stack.enter_context(scratch(work)))
        other = first_difference(work, again, second)
        found = first_difference(work, log, second) or found
        for text in verdict(work, log, found, other, elsewhere=_differences(work, log, first)):
            print(hang("verdict    ", text))
    return 1


def step_into(run: RunDir, step: int, rank: int) -> int:
    """Stops in pdb before rank `rank` computes its part of a step. Returns the exit code. Raises `RunError`."""
    log = StepLog.read(run)
    work = interval(run, step, log, beyond=True)
    if not 0 <= rank < work.ranks:
        raise RunError(Fault(what=f"there is no rank {rank}", where="command line", given=f"--rank {rank}",
                             remedy=f"The step was computed on {work.ranks} rank{'s' * (work.ranks > 1)}, which count "
                                    "from 0."))
    print(hang("replay     ", work.text), flush=True)
    with ExitStack() as stack:
        begun = None
        if work.ranks > 1 and work.step > work.start + 1:  # the weights before the step need all ranks
            begun = stack.enter_context(scratch(replace(work, step=step - 1)))
            compute(begun)
        return debug(stack.enter_context(scratch(work, debugs=True, rank=rank, begun=begun)))


def first_difference(work: Interval, log: StepLog, other: StepLog) -> Comparison | None:
    """The first step of an interval that two logs do not agree on; None if there is none."""
    for step in range(work.start + 1, work.step + 1):
        one, two = log.step(step), other.step(step)
        if one is None or two is None:
            continue
        fields = None if len(one.ranks) == len(two.ranks) else -1  # with virtual ranks their number may have changed
        if repr(one[:fields]) != repr(two[:fields]):  # unlike with ==, NaN equals NaN
            return Comparison(step=step, logged=one, replayed=two)
    return None


def _row(step: int, found: Step | None) -> str:
    assert found is not None
    skipped = ", skipped" if found.skipped else ""
    return f"{f'step {step}':<{LABEL}}loss {found.loss:.9g}, gradient {found.digest:016x}{skipped}"


def _equal_before(work: Interval, found: Comparison) -> str:
    count = found.step - work.start - 1
    return f"; the {f'{count:,} steps' if count > 1 else 'step'} before it {'are' if count > 1 else 'is'} equal" if (
        count) else ""


def verdict(work: Interval, log: StepLog, found: Comparison, other: Comparison | None, *, elsewhere: str) -> list[str]:
    """What an unequal replay means; `other` is the first difference between two replays."""
    note = claim(work.run)
    if other is not None:
        return [f"two replays differ from each other, first in step {other.step:,}: "
                + (note or "this machine does not compute the same twice; look for the cause here first")]
    if elsewhere:
        return [f"unknown: two replays agree with each other, and not with the log, but {elsewhere}. Repeat it where "
                "the run was trained"]
    whose = _whose(work.run, log, found)
    return [f"the machine did it: {whose} in step {found.step:,}. Two replays agree with each other, and not with the "
            "log"] + ([note] if note else [])


def _whose(run: RunDir, log: StepLog, found: Comparison) -> str:
    """Which ranks computed something else, and on which nodes."""
    if not found.ranks:
        return "each rank computed the same, and the average of their gradients came out differently"
    attempt = log.attempt_of(found.step)
    assert attempt is not None
    nodes = _nodes(run, attempt.attempt, attempt.ranks)
    return " and ".join(f"rank {rank} on node {nodes[rank]}" for rank in found.ranks) + " computed something else"


def _nodes(run: RunDir, number: int, ranks: int) -> list[str]:
    """The node of each rank of an attempt."""
    attempt = run.attempt(number)
    count = len(list(attempt.path.glob("node*.up.json")))
    up = [NodeUp.read(attempt.node_up(node)) for node in range(count)]
    job = Job.read(run.job)
    hosts = [one.host if one else "?" for one in up] or [job.host if job else "?"]
    return [hosts[rank * len(hosts) // ranks] for rank in range(ranks)]


def _differences(work: Interval, log: StepLog, again: RunDir) -> str:
    """In which versions and hardware a replay differs from the attempt that it repeats; '' if in none."""
    attempt = log.attempt_of(work.step)
    before = AttemptVersions.read(work.run.attempt(attempt.attempt).versions) if attempt else None
    newest = again.newest_attempt()
    now = AttemptVersions.read(newest.versions) if newest else None
    return ", ".join(different_versions(before.versions, now.versions, "then", "now")) if before and now else ""


def different_versions(one: Versions, other: Versions, here: str, there: str) -> list[str]:
    """The versions, devices and precisions in which two attempts differ, a sentence for each."""
    labels = {**LABELS, "device": "device", "precision": "precision"}
    return [f"{label} was {getattr(one, name) or 'none'} {here} and is {getattr(other, name) or 'none'} {there}"
            for name, label in labels.items() if getattr(one, name) != getattr(other, name)]
