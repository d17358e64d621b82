"""Where a rank spends the time of its steps: waiting for data, computing, and waiting for the gradients of the others.

The ranks of a step end together, because each waits for the gradients of all others. So their step times are equal even
if one rank is slow; what differs is how much of the step each rank waits for the others. The moment at which a rank has
its own gradients divides the step: that of the parameter whose gradient was the last one in the first backward pass.
The backward pass returns when DistributedDataParallel has the gradients of all ranks.

On a GPU the moments are CUDA events, which are read when the GPU has passed them, so the host never waits for them. On
the CPU, measuring takes about 10 us of a step.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from drumbeat.trainers.world import World

Moment = float | torch.cuda.Event
"""The performance counter in seconds, or an event on the GPU."""


class Times(NamedTuple):
    """A rank's seconds in the steps of an interval."""

    data: float
    """Waiting for batches, while the device had nothing to compute."""
    compute: float
    """Forward and backward passes up to the rank's own gradients, and the optimizer."""
    cores: float
    """Ready to compute, but without a core, because other programs used it. On the CPU only."""
    wait: float
    """From its own gradients to those of all ranks."""
    samples: float
    """The number of the rank's samples."""


class Step(NamedTuple):
    """The moments of a step."""

    waited: float
    """Seconds that the host waited for the batch."""
    samples: int
    begun: Moment
    own: Moment
    """The rank has its own gradients."""
    reduced: Moment
    """It has those of all ranks."""
    ended: Moment
    cores: float
    """Seconds from `begun` to `own` in which the rank waited for a core."""


class StepTimes:
    """The times of this rank's steps, measured if there are several ranks.

    Not measured: collectives in a user's model or loss, such as those of SyncBatchNorm, in which all ranks wait for the
    slowest. Their waiting counts as computation on each rank, so that a slow rank may not stand out.
    """

    def __init__(self, world: World, parameters: Iterable[Tensor]) -> None:
        """`parameters` are those that are trained."""
        self.device = world.device
        self.compares = self.measures = world.size > 1
        self.observer: Callable[[Step | None], None] | None = None
        self.waited = 0.0
        """Seconds that the host waited for the current batch."""
        self.samples = 0
        self.begun: Moment = 0.0
        self.own: Moment | None = None
        self.reduced_at: Moment = 0.0
        self.delay = 0.0
        """`_delay` when the step began."""
        self.cores = 0.0
        self.steps: deque[Step] = deque()
        """The steps that have not been read."""
        self.last: Moment | None = None
        """The end of the last step that was read."""
        self.scheduler = -1
        """The open file of the kernel's times of this thread; -1 if the kernel has none."""
        if self.measures and self.device.type == "cpu":
            with suppress(OSError):
                self.scheduler = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self.newest: Tensor | None = None
        """The parameter with the newest gradient, in the first backward pass."""
        self.hooks = [one.register_post_accumulate_grad_hook(self._note) for one in parameters if self.measures]

    def begin(self, samples: int) -> None:
        """This rank begins to compute a step on `samples` samples."""
        if self.measures:
            self.samples, self.own, self.delay, self.begun = samples, None, self._delay(), self.now()

    def own_gradients(self, parameter: Tensor | None = None) -> None:
        """This rank has its own gradients. With micro-batches, the last call counts, in the pass that communicates."""
        if self.measures:
            self.own, self.cores = self.now(), self._delay() - self.delay

    def reduced(self) -> None:
        """This rank has the gradients of all ranks."""
        if self.measures:
            self.reduced_at = self.now()
            self.own = self.reduced_at if self.own is None and self.observer else self.own
            if self.newest is not None:
                self._remove_hooks()
                self.hooks = [self.newest.register_post_accumulate_grad_hook(self.own_gradients)]
                self.newest = None

    def end(self) -> None:
        """The step has ended."""
        if self.own is not None:
            step = Step(self.waited, self.samples, self.begun, self.own, self.reduced_at, self.now(), self.cores)
            if self.compares:
                self.steps.append(step)
            if self.observer is not None:
                self.observer(step)

    def observe(self, observer: Callable[[Step | None], None] | None) -> None:
        """Calls `observer` with each step when it ends, and with None when the phase does; None ends that. Steps are
        then measured if there is one rank, too."""
        self.observer, self.measures = observer, self.compares or observer is not None
        self.own = None

    def read(self) -> Times:
        """The times since the last call, of all steps that the device has ended."""
        data = compute = cores = wait = samples = 0.0
        while self.steps and _passed(self.steps[0].ended):
            step = self.steps.popleft()
            data += step.waited if self.last is None else min(step.waited, seconds(self.last, step.begun))
            compute += seconds(step.begun, step.own) + seconds(step.reduced, step.ended) - step.cores
            cores += step.cores
            wait += seconds(step.own, step.reduced)
            samples += step.samples
            self.last = step.ended
        return Times(data, compute, cores, wait, samples)

    def close(self) -> None:
        """Ends the measurement. The parameters may be trained by another phase."""
        if self.observer is not None:
            self.observer(None)
        self._remove_hooks()
        if self.scheduler >= 0:
            os.close(self.scheduler)
        self.measures, self.scheduler = False, -1

    def _note(self, parameter: Tensor) -> None:
        self.newest = parameter

    def _remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def now(self) -> Moment:
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _delay(self) -> float:
        """Seconds that this thread was ready to run, but had no core: the second number of schedstat, in nanoseconds
        (Linux, Documentation/scheduler/sched-stats.rst)."""
        return int(os.pread(self.scheduler, 99, 0).split()[1]) / 1e9 if self.scheduler >= 0 else 0.0


def _passed(moment: Moment) -> bool:
    return isinstance(moment, float) or moment.query()


def seconds(first: Moment, second: Moment) -> float:
    if isinstance(first, float):
        assert isinstance(second, float)
        return second - first
    assert not isinstance(second, float)
    return float(first.elapsed_time(second)) / 1e3
