"""How all ranks come to stop, or save, after the same step.

Rank 0 looks at the stop marker and at the clock, and tells the others in one small broadcast, every so many steps:
about half a second's worth. The number of steps until the next look travels in the same message, so it is the same on
all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from drumbeat.configs.run.folder import Attempt
from drumbeat.trainers.world import World

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What all ranks do before the next step."""

    stop: bool = False
    save: bool = False


@dataclass
class StopCoordinator:
    """The ranks' common look at the marker and the clock."""

    world: World
    attempt: Attempt
    save_seconds: float
    """Save when so much time has passed since the last save."""
    next_look: int = 0
    """The step before which the ranks look next."""
    saved_at: float = field(default_factory=time.monotonic)
    looked: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    """The step and the time of the last look."""

    def before(self, step: int) -> Decision:
        """What to do before the run's step number `step`. Every rank calls it before every step."""
        if step < self.next_look:
            return Decision()
        now = time.monotonic()
        steps, seconds = step - self.looked[0], now - self.looked[1]
        pace = max(1, min(int(steps * SECONDS_BETWEEN_LOOKS / seconds), 2 * max(1, steps))) if seconds > 0 else 1
        words = torch.tensor([self.attempt.stop.exists(), now - self.saved_at >= self.save_seconds, pace],
                             dtype=torch.int64) if self.world.is_main else torch.zeros(3, dtype=torch.int64)
        stop, save, pace = self.world.broadcast(words).tolist()
        self.next_look = step + pace
        self.looked = step, time.monotonic()
        return Decision(stop=bool(stop), save=bool(save))

    def look_again(self, step: int) -> None:
        """Look before `step` whatever was agreed: something long has just been done."""
        self.next_look = step
        self.looked = step, time.monotonic()

    def saved(self) -> None:
        """A checkpoint was written."""
        self.saved_at = time.monotonic()
