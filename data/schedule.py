"""The steps of a phase: which positions each one reads, where epochs end, and where the phase does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property


@dataclass(frozen=True)
class Schedule:
    """The steps of a phase, the positions that each step reads, and the epoch boundaries.

    Step k (from 0) reads batch_size positions, starting at k * batch_size; after a change of the batch size, it starts
    where the steps before it have ended. Epoch boundaries are at multiples of n, and the last one is at the end of the
    phase, which may be within an epoch. A step may end after a boundary.
    """

    n: int
    """Samples in the dataset: the length of an epoch."""

    batch_size: int
    """Samples in a step, over all ranks."""

    epochs: float | Fraction
    """The length of the phase."""

    earlier: tuple[tuple[int, int], ...] = ()
    """Steps that the phase took with other batch sizes before its present one: (steps, batch size), in order."""

    planned: int = 0
    """The steps of the phase if it did not end early (`cut`); 0 if it does not."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, not {self.n} and {self.batch_size}")
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs must be a positive number, not {self.epochs}")

    @cached_property
    def samples(self) -> int:
        """Samples up to the last epoch boundary, rounded up."""
        return max(1, math.ceil(_exact(self.epochs) * self.n))

    @cached_property
    def changed_at(self) -> int:
        """The number of the first step with the present batch size."""
        return sum(steps for steps, _ in self.earlier)

    @cached_property
    def steps(self) -> int:
        """Steps of the phase. The last step is the first that reaches the last epoch boundary."""
        return max(self.changed_at, self._steps_to(self.samples))

    @property
    def overshoot(self) -> int:
        """Samples that the last step reads after the last epoch boundary: fewer than a batch."""
        return self.start(self.steps) - self.samples

    def start(self, step: int) -> int:
        """The first position of a step, which is the number of samples that the steps before it have read."""
        position = 0
        for steps, size in self.earlier:
            position += min(step, steps) * size
            step = max(0, step - steps)
        return position + step * self.batch_size

    def positions(self, step: int) -> range:
        """The positions of a step, to be sliced by a rank's shard. Raises ValueError if there is no such step."""
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} is not in 0 to {self.steps - 1}")
        return range(self.start(step), self.start(step + 1))

    def epochs_after(self, steps: int) -> int:
        """The number of epochs that are complete after `steps` steps, without the overshoot."""
        return min(self.start(steps), self.samples) // self.n

    def steps_until(self, epochs: int) -> int:
        """The number of steps until `epochs` epochs are complete, or until the end of the phase if that is earlier."""
        return self._steps_to(min(epochs * self.n, self.samples))

    def _steps_to(self, position: int) -> int:
        """The number of steps until all positions before this one are read."""
        step = 0
        for steps, size in self.earlier:
            if position <= steps * size:
                return step - (-position // size)
            step, position = step + steps, position - steps * size
        return step - (-position // self.batch_size)

    def next_mark(self, steps: int, every: float | Fraction = 1) -> int:
        """The number of steps, more than `steps`, after which the next multiple of `every` epochs is complete, or after
        which the phase ends if that is earlier. A batch may reach several multiples at once."""
        length = _exact(every) * self.n
        return min(self.steps, self._steps_to(math.ceil((self.start(steps) // length + 1) * length)))

    def cut(self, steps: int) -> Schedule:
        """The schedule of a phase that ends after `steps` steps, if that is earlier: at the epoch boundary that the
        last of them reaches, or else at its end."""
        if steps >= self.steps:
            return self
        read = self.start(steps)
        boundary = read - read % self.n
        return replace(self, epochs=Fraction(boundary if boundary > self.start(steps - 1) else read, self.n),
                       planned=self.planned or self.steps)


def _exact(epochs: float | Fraction) -> Fraction:
    """A number of epochs; a float as the nearest fraction with a denominator up to 10**9, so that 0.1 * 3 is 3/10."""
    return epochs if isinstance(epochs, Fraction) else Fraction(epochs).limit_denominator(10**9)
