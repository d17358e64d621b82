"""Which rank hung, from the files of the ranks' watchdogs (`trainers/watchdog.py`): the step that each rank had
reached, and the stacks of its threads.

All ranks run the same program and meet in collectives. A rank waits only for ranks that are behind it, so the rank at
the earliest position in the program is the one that the others wait for: the lowest step, and within a step the lowest
line, compared frame by frame from the outermost call. With gloo the stacks of waiting ranks show a collective. With
NCCL they do not: a collective returns before it has run, and the rank continues until a later line needs a result from
the GPU (`.item()`, `.cpu()`, an optimizer) or the GPU's queue is full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.attempt import Attempt
from drumbeat.launch.attempts.logs import end_of, numbered

THREAD = re.compile(r"^(?:Thread|Current thread) 0x", re.MULTILINE)
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
"""Lines of faulthandler, which prints the newest thread and the innermost call first."""
COLLECTIVE, BACKWARD = "distributed_c10d.py", "_engine_run_backward"
"""The file and the function in which a rank waits for others: the backward pass reduces gradients over the ranks."""
LIBRARIES = re.compile(r"(site|dist)-packages|/lib(64)?/python3|<frozen ")
FLIGHT_RECORDER = "nccl-flight-recorder-rank"
"""The prefix of the files in which torch's flight recorder lists the collectives of each rank. They are pickles, which
the launcher does not read."""


@dataclass(frozen=True)
class Hang:
    """A message about a hang, and the rank that caused it; -1 if that is unknown."""

    message: str
    rank: int = -1


@dataclass(frozen=True)
class Frame:
    """A line of a stack."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Position:
    """The position of a rank in the program."""

    step: int
    """The run's step; -1 before the first."""
    frames: list[Frame]
    """The main thread's stack, outermost call first; empty if the rank has written none."""

    @classmethod
    def read(cls, path: Path) -> Position:
        text = end_of(path)
        step = re.match(r"step +(\d+)\n", text)
        frames = [Frame(file, int(line), function) for file, line, function in FRAME.findall(THREAD.split(text)[-1])]
        return cls(int(step[1]) if step else -1, frames[::-1])

    @property
    def in_collective(self) -> bool:
        return any(Path(frame.file).name == COLLECTIVE for frame in self.frames)

    @property
    def location(self) -> str:
        """The innermost line outside of libraries, as ' in FUNCTION (FILE:LINE)'."""
        inner = self.frames[::-1]
        own = [frame for frame in inner if not LIBRARIES.search(frame.file)] or inner
        return "".join(f" in {frame.function} ({Path(frame.file).name}:{frame.line})" for frame in own[:1])


def positions(attempt: Attempt) -> dict[int, Position]:
    """The position of each rank; only the step of ranks that did not hang."""
    return {rank: Position.read(path) for rank, path in numbered(attempt.path, "rank", ".stacks")}


def find_hang(attempt: Attempt) -> Hang | None:
    """The hang that ended the attempt; None if no rank has written its stacks."""
    found, name = positions(attempt), attempt.path.name
    if not any(position.frames for position in found.values()):
        return None
    recorded = f"; torch's flight recorder is in {name}/{FLIGHT_RECORDER}*" if any(
        attempt.path.glob(f"{FLIGHT_RECORDER}*")) else ""
    behind = least_advanced({rank: position for rank, position in found.items()
                             if not position.in_collective and (position.frames or not attempt.error(rank).exists())})
    if len(behind) != 1:
        return Hang("the ranks hung, but it is not known which one first; their stacks are in "
                    f"{name}/rank*.stacks{recorded}")
    rank, position = behind[0], found[behind[0]]
    at = f" at step {position.step}" if position.step >= 0 else ""
    others = "; the other ranks waited for it" if len(found) > 1 else ""
    if not position.frames:
        return Hang(f"rank {rank} hung{at} and could not write its stacks{others}{recorded}", rank)
    where = f"its stacks are in {name}/rank{rank}.stacks"
    return Hang(f"rank {rank} hung{at}{position.location}{others}; {where}{recorded}", rank)


def least_advanced(positions: dict[int, Position]) -> list[int]:
    """The ranks at the earliest position; several if they cannot be distinguished. Of a rank without stacks only the
    step is known: if all others are at the same position, that rank is the earliest."""
    first = min((position.step for position in positions.values()), default=-1)
    candidates = {rank: position.frames for rank, position in positions.items() if position.step == first}
    silent = [rank for rank, frames in candidates.items() if not frames]
    left = {rank: frames for rank, frames in candidates.items() if frames}
    depth = 0
    while len(left) > 1 and all(len(frames) > depth for frames in left.values()):
        level = {rank: frames[depth] for rank, frames in left.items()}
        if len({(frame.file, frame.function) for frame in level.values()}) > 1:
            break  # the same line called different functions
        lowest = min(frame.line for frame in level.values())
        left = {rank: left[rank] for rank, frame in level.items() if frame.line == lowest}
        depth += 1
    if len(left) > 1:  # in the backward pass, a rank that computes is behind ranks that wait
        computing = [rank for rank, frames in left.items() if frames[-1].function != BACKWARD]
        left = {rank: left[rank] for rank in computing} if len(computing) == 1 else left
    return list(left) if len(left) == 1 else silent or list(left)
