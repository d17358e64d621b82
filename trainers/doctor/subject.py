"""A set that the doctor examines, with the samples that were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drumbeat.configs.layers import short
from drumbeat.data.loader import Samples
from drumbeat.data.order import Integers
from drumbeat.data.sample_names import sample_names
from drumbeat.data.sampling import classes_of, labels_of
from drumbeat.trainers.doctor.sample_checks import SampleCheck, file_of


@dataclass(frozen=True)
class Subject:
    """One set."""

    name: str
    """train, validation or test."""
    samples: Samples
    checks: Sequence[SampleCheck] = ()

    @property
    def good(self) -> list[SampleCheck]:
        """The samples that could be read."""
        return [check for check in self.checks if not check.error]

    @property
    def read(self) -> str:
        """How many samples could be read, as text."""
        n = len(self.samples)
        return f"all {n:,}" if len(self.good) == n else f"{len(self.good):,} of {n:,}"

    @cached_property
    def labels(self) -> Integers | None:
        """The class of each sample, int64 [n]; None if the set does not have one for each."""
        try:
            return labels_of(self.samples)
        except ValueError:
            return None

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes; empty without labels."""
        try:
            return classes_of(self.samples)
        except ValueError:
            return []

    @cached_property
    def names(self) -> list[str]:
        """The names of all samples; empty if the set does not name them."""
        return sample_names(self.samples) or []

    def label(self, index: int) -> str:
        """The class of a sample as text; '' without one."""
        return self.classes[int(self.labels[index])] if self.labels is not None and self.classes else ""

    def sample(self, index: int) -> str:
        """A sample as text: its file, its name, or its number."""
        if file := file_of(self.samples, index):
            return short(Path(file))
        return f"{self.name} {self.names[index]}" if self.names else f"{self.name} sample {index:,}"
