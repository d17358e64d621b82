"""The step log: 16 bytes for each step of a run, from which two runs, or a run and its replay, are compared.

    attempts/<k>/steps.bin
        32 bytes    "DRUMSTEP", the version (uint32), the ranks (uint32), the number of the first step (uint64), zeros
        16 bytes    a step: its loss (float64) and the digest of its gradient (uint64)
        4 bytes     for each rank, if there are several: a digest of its own part of the loss and of the gradient

All numbers are little-endian. Each attempt has a file of its own, which begins behind the checkpoint that it resumed
from: its steps replace those of earlier attempts from there on. The lowest bit of a loss says that the step was
skipped. A part of a record at the end of the file, as SIGKILL leaves it, is ignored, and so are zeros, as a power
failure leaves them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir

MAGIC, VERSION = b"DRUMSTEP", 1
HEADER = struct.Struct("<8sIIQ8x")
STEP = struct.Struct("<QQ")
"""The bits of a step's loss, and the digest of its gradient."""
RANK_BYTES = 4
SKIPPED = 1
"""The bit of a loss that says that its step was skipped."""


class Step(NamedTuple):
    """What the log holds of a step."""

    loss: float
    digest: int
    skipped: bool
    ranks: tuple[int, ...]
    """The digest of each rank's own part of the step; empty for a run on one rank."""


def header(first: int, ranks: int) -> bytes:
    """The first bytes of a file whose first record is that of step `first`."""
    return HEADER.pack(MAGIC, VERSION, ranks, first)


def record_bytes(ranks: int) -> int:
    """The size of a record of a run on `ranks` ranks."""
    return STEP.size + (RANK_BYTES * ranks if ranks > 1 else 0)


@dataclass(frozen=True)
class AttemptSteps:
    """The steps of one attempt."""

    attempt: int
    first: int
    """The number of the first one, from 1."""
    ranks: int
    data: bytes
    """Whole records."""

    @property
    def last(self) -> int:
        """The number of the last one; before the first if there are none."""
        return self.first + len(self.data) // record_bytes(self.ranks) - 1

    def record(self, step: int) -> bytes:
        """The record of a step."""
        size = record_bytes(self.ranks)
        return self.data[(step - self.first) * size:(step - self.first + 1) * size]

    def step(self, step: int) -> Step:
        """What the record of a step says."""
        record = self.record(step)
        bits, digest = STEP.unpack_from(record)
        loss, = struct.unpack("<d", struct.pack("<Q", bits & ~SKIPPED))
        ranks = struct.unpack_from(f"<{(len(record) - STEP.size) // RANK_BYTES}I", record, STEP.size)
        return Step(loss, digest, bool(bits & SKIPPED), ranks)


def read_attempt(path: Path, attempt: int) -> AttemptSteps | None:
    """The steps in a file; None if there is none, or if its header is not complete. Raises `DamagedError` if it is no
    step log, or one of another version."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from error
    if len(content) < HEADER.size:
        return None
    magic, version, ranks, first = HEADER.unpack_from(content)
    if magic != MAGIC or version != VERSION:
        raise DamagedError(path, "it is no step log" if magic != MAGIC else
                           f"it has version {version}; this Drumbeat reads version {VERSION}")
    size = record_bytes(ranks)
    whole = (len(content) - HEADER.size) // size
    data = content[HEADER.size:HEADER.size + whole * size]
    while data and not any(data[-size:]):
        data = data[:-size]
    return AttemptSteps(attempt, first, ranks, data)


class StepLog:
    """The steps that a run has taken, over all attempts."""

    def __init__(self, attempts: list[AttemptSteps]) -> None:
        """`attempts` begin with the oldest."""
        self.attempts = attempts

    @classmethod
    def read(cls, run: RunDir) -> StepLog:
        """The log of a run; without steps if it has none. Raises `DamagedError`."""
        found = (read_attempt(attempt.steps, attempt.number) for attempt in run.all_attempts())
        return cls([one for one in found if one is not None])

    @property
    def last(self) -> int:
        """The last step; 0 without one."""
        return self.attempts[-1].last if self.attempts else 0

    def attempt_of(self, step: int) -> AttemptSteps | None:
        """The attempt whose record of a step counts: that of the newest which did not resume behind it; None if the
        step is not in the log."""
        newest = next((one for one in reversed(self.attempts) if one.first <= step), None)
        return newest if newest is not None and step <= newest.last else None

    def steps(self) -> Iterator[int]:
        """The numbers of all steps in the log."""
        return (step for step in range(1, self.last + 1) if self.attempt_of(step))

    def record(self, step: int) -> bytes:
        """The 16 bytes of a step; empty if it is not in the log."""
        found = self.attempt_of(step)
        return found.record(step)[:STEP.size] if found else b""

    def step(self, step: int) -> Step | None:
        """What the log says of a step; None if it is not in the log."""
        found = self.attempt_of(step)
        return found.step(step) if found else None


def first_difference(one: StepLog, other: StepLog) -> int | None:
    """The first step that both logs hold and that differs between them; None if there is none."""
    last = min(one.last, other.last)
    return next((step for step in range(1, last + 1)
                 if (mine := one.record(step)) != (theirs := other.record(step)) and mine and theirs), None)
