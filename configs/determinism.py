"""What a run promises of its bits, and the operations that limit the promise.

Each operation without a deterministic implementation that a rank ran has one file in the run's folder, whichever rank
and attempt ran it. `drumbeat.trainers.determinism` writes them; `claim` is the sentence that commands print.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from drumbeat.configs.run.folder import RunDir, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation without a deterministic implementation, and where the run first met it."""

    name: str
    """As torch calls it: "cumsum_cuda_kernel", "Flash Attention"."""
    attempt: int
    rank: int
    line: str
    """The line of Python that ran it, FILE:LINE; for a backward pass, the line in torch that starts it."""


def record(run: RunDir, operation: Operation) -> None:
    """Records an operation, unless the run has met it before. Raises `OSError` where the disk does not take it."""
    path = run.nondeterministic / f"{re.sub(r'[^A-Za-z0-9]+', '_', operation.name)}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, asdict(operation), durable=False)


def operations(run: RunDir) -> list[str]:
    """The names of the operations that a run has met, sorted."""
    return sorted(found["name"] for path in run.nondeterministic.glob("*.json") if (found := read_json(path)))


def claim(run: RunDir) -> str:
    """Why a repetition of the run may give different bits, as a sentence; '' where nothing of the kind is known."""
    if not read_json(run.status).get("deterministic", True):
        return "deterministic is false: repeating this run may give different bits"
    if names := operations(run):
        have = "have" if len(names) > 1 else "has"
        return f"{', '.join(names)} {have} no deterministic implementation: repeating this run may give different bits"
    return ""
