"""What a drill has shown: a line for each injected fault, the summary, the conclusion and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drumbeat.configs.errors import hang
from drumbeat.configs.layers import short
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.goodput import effective_ratio, goodput, text

LOST, NOT_ALL_INJECTED = 1, 3
"""Exit codes beside 0; 2 is that of a user's mistake."""
WIDTH = 15
"""Of the labels in the summary."""


@dataclass(frozen=True, kw_only=True)
class Injection:
    """An injected fault and the recovery from it, or why it was not injected."""

    name: str
    description: str
    step: int = 0
    """The step of the run's newest heartbeat at that time."""
    lost_steps: int = 0
    """Steps that the run took again, counted up to `step`."""
    recovery_seconds: float = 0.0
    """From the fault to the next step; to the next complete checkpoint if the attempt kept running."""
    verdict: str = ""
    not_injected: str = ""
    """The reason; '' for a fault that was injected."""

    def done(self, *, step: int, lost: int, seconds: float, verdict: str) -> Injection:
        return replace(self, step=step, lost_steps=lost, recovery_seconds=seconds, verdict=verdict)

    def failed(self, reason: str) -> Injection:
        return replace(self, not_injected=reason)


def header(kind: str) -> str:
    """The header of the lines."""
    return f"{'':>3}  {'step':>9}  {kind:<30}  {'lost steps':>10}  {'recovery time':>13}"


def line(number: int, injection: Injection) -> str:
    """A fault in the table, and below it how the attempt ended."""
    if injection.not_injected:
        return hang(f"{number:>3}  {'':>9}  {injection.description:<30}  ", f"not injected: {injection.not_injected}",
                    indent=16)
    return (f"{number:>3}  {injection.step:>9,}  {injection.description:<30}  {injection.lost_steps:>10,}  "
            f"{injection.recovery_seconds:>11.1f} s\n{hang(' ' * 16, injection.verdict)}")


def summary(injections: Sequence[Injection], changes: Sequence[Injection], faulted: RunDir, *,
            runs: Sequence[RunDir]) -> str:
    """How many faults were injected, what they cost, and where the runs are. `faulted` is the run with the faults."""
    spent = goodput(View.read(faulted))
    injected = [one for one in injections if not one.not_injected]
    seconds = sorted(one.recovery_seconds for one in injected) or [0.0]
    changed = sum(not one.not_injected for one in changes)
    rows = [("faults", f"{len(injected)} of {len(injections)} injected; {changed} of 2 changes of the number of ranks"),
            ("lost steps", f"{sum(one.lost_steps for one in injected):,}, taken again"),
            ("recovery time", f"{seconds[len(seconds) // 2]:.1f} s (median), {seconds[-1]:.1f} s (longest)"),
            ("time", text(spent)),
            ("effective", f"{effective_ratio(spent):.2f} of the time went into steps and evaluations that count")]
    return "\n".join(["", *(hang(f"{name:<{WIDTH}}", value) for name, value in rows),
                      *(f"{'run':<{WIDTH}}{short(run.path)}" for run in runs)])


def conclusion(lost: Sequence[str], injections: Sequence[Injection], runs: Sequence[RunDir]) -> list[str]:
    """What was lost or that nothing was, which faults that proves and which it does not; and why the runs may give
    different bits even so, if they may."""
    notes = dict.fromkeys(filter(None, map(claim, runs)))
    missing = [one for one in injections if one.not_injected]
    proven = dict.fromkeys(one.description for one in injections if not one.not_injected)
    result = "nothing lost: the same weights bit for bit, the same samples, each step once in the curves"
    if lost:
        verdict = [f"{'LOST':<{WIDTH}}{difference}" for difference in lost]
    elif missing:
        verdict = ["NOT ALL PROVEN: nothing was lost, but not all faults were injected",
                   hang(f"{'proven':<{WIDTH}}", "; ".join(proven) or "nothing"),
                   *(hang(f"{'not proven':<{WIDTH}}", f"{one.description}: {one.not_injected}") for one in missing)]
    else:
        verdict = [result]
    return [*verdict, *(f"{'note':<{WIDTH}}{note}" for note in notes)]


def exit_code(lost: Sequence[str], injections: Sequence[Injection]) -> int:
    """0 if all faults were injected and nothing was lost, 1 if something was lost, 3 if a fault was not injected."""
    if lost:
        return LOST
    return NOT_ALL_INJECTED if any(one.not_injected for one in injections) else 0
