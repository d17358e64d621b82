"""Makes all ranks stop, save, or end the run, after the same step.

About every half second, rank 0 checks the stop marker and the time, and broadcasts its decision. The number of steps
until the next check is part of the same message, so it is the same on all ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.profile_records import ProfileRequest
from drumbeat.trainers.world import World

SECONDS_BETWEEN_CHECKS = 0.5
SECONDS_BETWEEN_EXCHANGES = 2.0
SECONDS_BETWEEN_SAVES = 2.0
"""The least time between two saves of which the second is only due to an evaluation."""
SAVING = 20
"""Training waits at most 1/20 of its time for these saves: the next one is due after 20 times what the last one took.
"""
WARM_UP_STEPS = 1
"""Steps of a profile that are not measured, because the profiler starts in them."""
RANKS_PER_SECOND = 256
"""With more ranks there is more time between two exchanges: one takes rank 0 about 10 us a rank (an estimate)."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What all ranks do before the next step."""

    stop: bool = False
    save: bool = False
    exchange: bool = False
    """Rank 0 collects the times of the ranks."""
    end: bool = False
    """The run's hours are used up: it ends as if this were the end of its last phase."""
    profile: ProfileRequest | None = None
    """The steps from here on are profiled."""


CONTINUE = Decision()


@dataclass
class StopCoordinator:
    """Lets the ranks agree on a stop, a save or the end."""

    world: World
    attempt: Attempt
    save_seconds: float
    """Save if this time has passed since the last save."""
    seconds_left: Callable[[], float] = lambda: math.inf
    """The rest of the run's hours, in seconds, on rank 0."""
    stop_at: int | None = None
    """The step after which the attempt stops: the last one of a replay, or because the next attempt trains with
    another config (`configs/run/fork.py`)."""
    next_check: int = 0
    """The step before which the ranks check next."""
    saved_at: float = field(default_factory=time.monotonic)
    exchanged_at: float = field(default_factory=time.monotonic)
    last_check: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    """The step and the time of the last check."""
    evaluated: bool = False
    """Whether there has been an evaluation since the last save and check."""
    save_took: float = 0.0
    """The seconds for which training waited for the last save."""
    profiled: tuple[str, int] = ("", 0)
    """The last request for a profile that rank 0 has taken, and the step before which it takes no other."""

    def before(self, step: int) -> Decision:
        """What to do before the run's step number `step`. All ranks call it before every step."""
        if step == self.stop_at:
            return Decision(stop=True)
        if step < self.next_check:
            return CONTINUE
        now = time.monotonic()
        steps, seconds = step - self.last_check[0], now - self.last_check[1]
        pace = max(1, min(int(steps * SECONDS_BETWEEN_CHECKS / seconds), 2 * max(1, steps))) if seconds > 0 else 1
        exchange = self.world.size > 1 and now - self.exchanged_at >= max(
            SECONDS_BETWEEN_EXCHANGES, self.world.size / RANKS_PER_SECOND)
        found = self._profile(step) if self.world.is_main else None
        message = torch.tensor([self.attempt.stop.exists(), now - self.saved_at >= self._save_seconds(), exchange,
                                self.seconds_left() <= 0, pace, found is not None],
                               dtype=torch.int64) if self.world.is_main else torch.zeros(6, dtype=torch.int64)
        stop, save, exchange, end, pace, profiles = self.world.broadcast(message).tolist()
        profile = ProfileRequest.parse(self.world.share(found.as_json() if found else None)) if profiles else None
        self.next_check = step + pace
        self.last_check = step, time.monotonic()
        self.exchanged_at = now if exchange else self.exchanged_at
        self.evaluated = False
        return Decision(stop=bool(stop), save=bool(save), exchange=bool(exchange), end=bool(end), profile=profile)

    def _profile(self, step: int) -> ProfileRequest | None:
        """A new request for a profile, unless one is in progress. Rank 0 takes it."""
        last, until = self.profiled
        if step < until or not self.attempt.profile.exists():
            return None
        found = ProfileRequest.take(self.attempt.profile)
        if found is None or found.id == last:  # a disk that has become read-only still has the last one
            return None
        self.profiled = found.id, step + found.steps + WARM_UP_STEPS
        return found

    def _save_seconds(self) -> float:
        """Save if this time has passed since the last save. A short epoch must not wait for a save each time."""
        soon = max(SECONDS_BETWEEN_SAVES, SAVING * self.save_took) if self.evaluated else math.inf
        return min(self.save_seconds, soon)

    def hours_are_used_up(self) -> bool:
        """Whether the run ends before its next phase. All ranks call it."""
        return bool(self.world.broadcast(torch.tensor(int(self.seconds_left() <= 0))))

    def check_before(self, step: int, *, evaluated: bool = False) -> None:
        """Check before `step`, because something that takes long has just been done, such as an evaluation."""
        self.evaluated = self.evaluated or evaluated
        self.next_check = step
        self.last_check = step, time.monotonic()

    def saved(self, took: float) -> None:
        """Call it after a save for which training waited `took` seconds."""
        self.saved_at, self.save_took, self.evaluated = time.monotonic(), took, False
