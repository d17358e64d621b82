"""Which rank hung, from what the watchdogs of the ranks have written down (`trainers/watchdog.py`): the step that each
rank had come to, and the stacks of its threads.

All ranks run the same program and meet in collectives. A rank waits only for one that has not come as far, so the rank
that stands at the earliest place of the program is the one that the others wait for: the lowest step, and in the same
step the lowest line, frame by frame from the outermost call in. With gloo the waiting ranks are seen in a collective.
With NCCL they are not: a collective returns before it has run, and a rank goes on until a later line needs its result
from the GPU (`.item()`, `.cpu()`, an optimizer) or the GPU's queue is full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.folder import Attempt

THREAD = re.compile(r"^(?:Thread|Current thread) 0x", re.MULTILINE)
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
"""Lines of faulthandler's, which begins with the newest thread and with the innermost call."""
COLLECTIVE, BACKWARD = "distributed_c10d.py", "_engine_run_backward"
"""The file and the function in which a rank waits for others: the backward pass sums gradients over the ranks."""
LIBRARIES = re.compile(r"(site|dist)-packages|/lib(64)?/python3|<frozen ")
FLIGHT_RECORDER = "nccl-flight-recorder-rank"
"""How the files begin in which torch's flight recorder says which collectives each rank has joined. They are pickles,
which are not for the launcher to read."""


@dataclass(frozen=True)
class Hang:
    """A hang in words, and the rank that began it; -1 where that is not known."""

    words: str
    rank: int = -1


@dataclass(frozen=True)
class Frame:
    """A line of a stack."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Stand:
    """Where a rank stood."""

    step: int
    """The run's step; -1 before the first."""
    frames: list[Frame]
    """The main thread's stack, the outermost call first; empty where the rank has written none."""

    @classmethod
    def read(cls, path: Path) -> Stand:
        text = path.read_text(errors="replace")
        step = re.match(r"step +(\d+)\n", text)
        frames = [Frame(file, int(line), function) for file, line, function in FRAME.findall(THREAD.split(text)[-1])]
        return cls(int(step[1]) if step else -1, frames[::-1])

    @property
    def in_collective(self) -> bool:
        return any(Path(frame.file).name == COLLECTIVE for frame in self.frames)

    @property
    def place(self) -> str:
        """The innermost line outside of libraries, as ' in FUNCTION (FILE:LINE)'."""
        inner = self.frames[::-1]
        own = [frame for frame in inner if not LIBRARIES.search(frame.file)] or inner
        return "".join(f" in {frame.function} ({Path(frame.file).name}:{frame.line})" for frame in own[:1])


def stands(attempt: Attempt) -> dict[int, Stand]:
    """Where each rank stood, or to which step it had come where it did not hang."""
    return {int(path.stem.removeprefix("rank")): Stand.read(path) for path in attempt.path.glob("rank*.stacks")}


def find_hang(attempt: Attempt) -> Hang | None:
    """The hang that the attempt ended in; None where no rank has written its stacks."""
    found, name = stands(attempt), attempt.path.name
    if not any(stand.frames for stand in found.values()):
        return None
    recorded = f"; torch's flight recorder is in {name}/{FLIGHT_RECORDER}*" if any(
        attempt.path.glob(f"{FLIGHT_RECORDER}*")) else ""
    behind = earliest({rank: stand for rank, stand in found.items()
                       if not stand.in_collective and (stand.frames or not attempt.error(rank).exists())})
    if len(behind) != 1:
        return Hang("the ranks hung, and which of them first is not known; their stacks are in "
                    f"{name}/rank*.stacks{recorded}")
    rank, stand = behind[0], found[behind[0]]
    at = f" at step {stand.step}" if stand.step >= 0 else ""
    others = "; the others waited for it" if len(found) > 1 else ""
    if not stand.frames:
        return Hang(f"rank {rank} hung{at} and could not write its stacks{others}{recorded}", rank)
    where = f"its stacks are in {name}/rank{rank}.stacks"
    return Hang(f"rank {rank} hung{at}{stand.place}{others}; {where}{recorded}", rank)


def earliest(stands: dict[int, Stand]) -> list[int]:
    """The ranks that stand at the earliest place of the program; several where they cannot be told apart. Of a rank
    that has written no stacks only the step is known: where all the others stand at one place, it is the earliest."""
    first = min((stand.step for stand in stands.values()), default=-1)
    candidates = {rank: stand.frames for rank, stand in stands.items() if stand.step == first}
    silent = [rank for rank, frames in candidates.items() if not frames]
    left = {rank: frames for rank, frames in candidates.items() if frames}
    depth = 0
    while len(left) > 1 and all(len(frames) > depth for frames in left.values()):
        level = {rank: frames[depth] for rank, frames in left.items()}
        if len({(frame.file, frame.function) for frame in level.values()}) > 1:
            break  # the same line has called different functions
        lowest = min(frame.line for frame in level.values())
        left = {rank: left[rank] for rank, frame in level.items() if frame.line == lowest}
        depth += 1
    if len(left) > 1:  # in the backward pass, who computes is behind who waits for others
        computing = [rank for rank, frames in left.items() if frames[-1].function != BACKWARD]
        left = {rank: left[rank] for rank in computing} if len(computing) == 1 else left
    return list(left) if len(left) == 1 else silent or list(left)
