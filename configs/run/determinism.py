"""Whether repeating a run gives the same bits, and the operations that prevent it.

Each operation without a deterministic implementation that a rank used has one file in the run's folder, for all ranks
and attempts. `trainers/determinism.py` writes the files; `claim` is the sentence that commands print.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from drumbeat.configs.run.files import write_soon
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.record import Record


@dataclass(frozen=True, kw_only=True)
class Operation(Record):
    """nondeterministic/NAME.json: an operation without a deterministic implementation, and where the run first used it.
    Written by the rank that used it."""

    name: str
    """torch's name for it: "cumsum_cuda_kernel", "Flash Attention"."""
    attempt: int
    rank: int
    line: str
    """The line of Python that ran it, FILE:LINE; for a backward pass, the line in torch that starts it."""


def record(run: RunDir, operation: Operation) -> bool:
    """Records an operation unless it is already recorded. Returns False if the disk does not accept it now."""
    path = run.nondeterministic / f"{re.sub(r'[^A-Za-z0-9]+', '_', operation.name)}.json"
    try:
        if path.exists():
            return True
        path.parent.mkdir(exist_ok=True)
    except OSError:
        return False
    return write_soon(path, json.dumps(operation.as_json(), indent=2) + "\n", 0)


def operations(run: RunDir) -> list[str]:
    """The sorted names of the operations that a run has recorded."""
    found = map(Operation.read, run.nondeterministic.glob("*.json"))
    return sorted(operation.name for operation in found if operation)


def claim(run: RunDir) -> str:
    """Why repeating the run may give different bits, as a sentence; '' if no reason is known."""
    plan = JobPlan.read(run.plan)
    if plan and not plan.deterministic:
        reason = "deterministic is false"
    elif names := operations(run):
        reason = f"{', '.join(names)} ran without a deterministic implementation"
    else:
        return ""
    return f"{reason}: repeating this run may give different bits"
