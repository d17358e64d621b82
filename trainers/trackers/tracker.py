"""What a tracker is: one small class with a few methods, which a process beside the run calls."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from drumbeat.configs.run.records import State


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a tracker knows of a run."""

    id: str
    """Its id, which never changes: a tracker finds the run again by it."""
    name: str
    """The name of the experiment."""
    folder: Path
    """The run's folder."""
    runs: Path
    """The folder of all runs."""
    store: Path
    """The folder in the run's for what the trackers themselves keep."""
    config: Mapping[str, str] = field(default_factory=dict)
    """The config's values by dotted key, as text; stars for those that are probably secret."""
    links: Mapping[str, str] = field(default_factory=dict)
    """The run's folder and the commit of its code, as text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Some points of curves at one step, or pictures."""

    number: int
    """How many rows the run has before this one. The same after each restart: rows are only added."""
    step: int
    time: float
    """When it was written, in seconds since 1970."""
    values: Mapping[str, float] = field(default_factory=dict)
    """By tag: "train/loss". May be NaN or Inf."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Encoded images (PNG) by tag."""


class Tracker(ABC):
    """A tracker. Its methods are called in one thread, in this order; whatever they raise is tried again later with a
    new object, from the first row on. So a tracker leaves out the rows that its store has already: it knows them by
    their number, or by the step of each curve. All of its methods may block: the process is its own."""

    package: ClassVar[str] = ""
    """The Python package that it needs; '' for none."""
    install: ClassVar[str] = "pip install 'drumbeat[trackers]'"

    @classmethod
    def missing(cls) -> str:
        """The package that it needs and that is not installed; otherwise ''."""
        return cls.package if cls.package and importlib.util.find_spec(cls.package) is None else ""

    def problem(self) -> tuple[str, str]:
        """What is missing for it to work (keys, an address), and what to do; ('', '') if nothing is. Called before the
        run is submitted: it neither imports the package nor asks a server."""
        return "", ""

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Opens the run in the tracker, or makes it, and finds out which rows it has."""

    @abstractmethod
    def points(self, rows: Sequence[Row]) -> None:
        """Sends the points of some rows, in their order. Returns when the tracker has them, or keeps them itself."""

    @abstractmethod
    def picture(self, row: Row) -> None:
        """Sends the pictures of a row."""

    @abstractmethod
    def end(self, state: State, verdict: str) -> None:
        """Everything has been sent that there is: the run has ended, or waits to be started again (`state`). Returns
        when the tracker has it all."""
