"""Where a rank spends the time of its steps: waiting for data, computing, and waiting for the gradients of the others.

The ranks of a step end together, because each waits for the gradients of all others. So their step times are equal even
if one rank is slow; what differs is how much of the step each rank waits for the others. The moment at which a rank has
its own gradients divides the step: autograd calls the functions of `queue_callback` after the last gradient, in the
order in which they were queued (torch/csrc/autograd/engine.cpp), and DistributedDataParallel queues the one in which it
waits for the others when its last gradient is ready. `watch` queues its function before that, when the pass begins.

On a GPU the moments are CUDA events, which are read when the GPU has passed them, so the host never waits for them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Variable

from drumbeat.trainers.world import World

Moment = tuple[float, float] | torch.cuda.Event
"""On the CPU, the performance counter and how long this thread has waited for a core, both in seconds; or an event."""


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


class StepTimes:
    """The times of this rank's steps, measured if there are several ranks.

    Not measured: collectives in a user's model or loss, such as those of SyncBatchNorm, in which all ranks wait for the
    slowest. Their waiting counts as computation on each rank, so that a slow rank may not stand out.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.waited = 0.0
        """Seconds that the host waited for the current batch."""
        self.samples = 0
        self.moments: list[Moment] = []
        """Of the current step: its begin, own gradients, all gradients, end."""
        self.steps: deque[tuple[float, int, list[Moment]]] = deque()
        """`waited`, `samples` and `moments` of the steps that have not been read."""
        self.last: Moment | None = None
        """The end of the last step that was read."""
        self.scheduler = -1
        """The open file of the kernel's times of this thread; -1 if the kernel has none."""
        if world.size > 1 and world.device.type == "cpu":
            with suppress(OSError):
                self.scheduler = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self, samples: int) -> None:
        """This rank begins to compute a step on `samples` samples."""
        self.samples, self.moments = samples, []
        self._mark()

    def watch(self, loss: Tensor) -> None:
        """Call it before the backward pass that communicates."""
        if self.world.size > 1 and loss.requires_grad:
            loss.register_hook(lambda _: Variable._execution_engine.queue_callback(self._mark))  # type: ignore[attr-defined]

    def reduced(self) -> None:
        """This rank has the gradients of all ranks."""
        self._mark()

    def end(self) -> None:
        """The step has ended: a discarded one never does."""
        self._mark()
        if len(self.moments) == 4:
            self.steps.append((self.waited, self.samples, self.moments))

    def read(self) -> Times:
        """The times since the last call, of all steps that the device has ended."""
        data = compute = cores = wait = samples = 0.0
        while self.steps and _passed(self.steps[0][2][-1]):
            waited, count, (begun, own, all_ranks, ended) = self.steps.popleft()
            data += min(waited, _seconds(self.last, begun)[0]) if self.last else waited
            for seconds, delay in (_seconds(begun, own), _seconds(all_ranks, ended)):
                compute, cores = compute + seconds, cores + delay
            wait += sum(_seconds(own, all_ranks))
            samples += count
            self.last = ended
        return Times(data, compute, cores, wait, samples)

    def _mark(self) -> None:
        if self.world.size == 1:
            return
        if self.world.device.type == "cpu":
            self.moments.append((time.perf_counter(), self._delay()))
        else:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.world.device))
            self.moments.append(event)

    def _delay(self) -> float:
        """The second number of schedstat: nanoseconds on a run queue (Linux, Documentation/scheduler/sched-stats.rst).
        It takes 2 us."""
        return int(os.pread(self.scheduler, 99, 0).split()[1]) / 1e9 if self.scheduler >= 0 else 0.0


def _passed(moment: Moment) -> bool:
    return isinstance(moment, tuple) or moment.query()


def _seconds(first: Moment, second: Moment) -> tuple[float, float]:
    """The seconds between two moments, without and in waiting for a core."""
    if isinstance(first, tuple):
        assert isinstance(second, tuple)
        delay = second[1] - first[1]
        return second[0] - first[0] - delay, delay
    assert not isinstance(second, tuple)
    return float(first.elapsed_time(second)) / 1e3, 0.0
