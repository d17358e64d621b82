"""The predictions of several runs on the same samples: which evaluations are compared, and sample beside sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.preconditions import SPLITS
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import find_checkpoint, linked_checkpoint
from drumbeat.trainers.inference.samples import NAME, KeptSamples, read_samples

ORDER = ("test", "validation", "train")
"""Which set is compared if several are evaluated: the first of these."""
assert {*ORDER} == {*SPLITS}

FOLDER = re.compile(r"(\w+)-(\d+)")


@dataclass(frozen=True)
class Paired:
    """The same samples, in the same order, as several runs predict them."""

    split: str
    steps: Mapping[RunDir, int]
    """The step of the checkpoint of each run."""
    samples: Mapping[RunDir, KeptSamples]
    left_out: int
    """Samples that not all runs have: one could not read them, for example."""
    units: NDArray[np.int64]
    """The number of the group of each sample, from 0, or of each sample if there are no groups; int64 [n]."""
    grouped: bool

    @property
    def text(self) -> str:
        """What is compared: "test set, 624 samples in 310 groups"."""
        groups = f" in {self.units.max() + 1:,} groups" if self.grouped else ""
        more = f"; {self.left_out:,} that not all runs have are left out" if self.left_out else ""
        return f"{self.split} set, {len(self.units):,} samples{groups}{more}"


def evaluated(run: RunDir, split: str, which: str | None) -> int | None:
    """The step of the checkpoint whose evaluation on a set has its samples: of the best one (without a best one the
    last one) if it has been evaluated, otherwise the newest; or of the checkpoint `which` alone. None if there is
    none."""
    found = {int(name[2]) for path in run.path.glob(f"evaluation/{split}-*/{NAME}")
             if (name := FOLDER.fullmatch(path.parent.name))}
    preferred = find_checkpoint(run, which) if which else (
        linked_checkpoint(run, "best") or linked_checkpoint(run, "last"))
    step = int(preferred.name.rpartition("-")[2]) if preferred else -1
    return step if step in found else None if which else max(found, default=None)


def choose_split(runs: Sequence[RunDir], split: str | None, which: str | None) -> str | None:
    """The set that all runs have been evaluated on; None if there is none. Raises `RunError` if it is named."""
    for name in [split] if split else ORDER:
        missing = [run for run in runs if evaluated(run, name, which) is None]
        if not missing:
            return name
        if split:
            raise RunError(Fault(what=f"{len(missing)} of {len(runs)} runs have no predictions for each sample of the "
                                      f"{split} set", where=str(missing[0].path), given=_given(split, which),
                                 remedy="\n".join(evaluate_commands(missing, split, which))))
    return None


def evaluate_commands(runs: Sequence[RunDir], split: str, which: str | None) -> list[str]:
    """The commands that evaluate these runs."""
    option = f" --checkpoint {which}" if which else ""
    return [f"drumbeat evaluate {run.path.parent.name}/{run.id} --split {split}{option}" for run in runs]


def _given(split: str, which: str | None) -> str:
    return f"--split {split}" + (f" --checkpoint {which}" if which else "")


def paired(runs: Sequence[RunDir], split: str, which: str | None, pattern: str | None) -> Paired:
    """The samples of all runs, which have been evaluated on the set. `pattern` is a regular expression whose group
    finds the group of a sample in its name. Raises `RunError` if the sets have other samples, targets or classes."""
    steps = {run: step for run in runs if (step := evaluated(run, split, which)) is not None}
    read = {run: _read(run, split, step) for run, step in steps.items()}
    (first, of_first), *others = read.items()
    for run, found in others:
        _check_same_task(first, of_first, run, found, split)
    keys = {run: _keys(found.names) for run, found in read.items()}
    common = sorted(set.intersection(*(set(of_run) for of_run in keys.values())))
    most = max(map(len, keys.values()))
    if len(common) < most / 2:
        other = next(run for run in runs if keys[run].keys() != keys[first].keys())
        raise RunError(Fault(what=f"the {split} sets of the runs hold different samples", where=str(other.path),
                             given=f"{len(keys[first]):,} samples in {first.id}, {len(keys[other]):,} in {other.id}, "
                                   f"{len(common):,} in all runs", remedy="Compare runs of one set."))
    samples = {run: found.taken(np.array([keys[run][key] for key in common])) for run, found in read.items()}
    for run, found in samples.items():
        _check_same_targets(first, samples[first], run, found, split)
    units, grouped = _units(samples[first], pattern)
    return Paired(split, steps, samples, most - len(common), units, grouped)


def _read(run: RunDir, split: str, step: int) -> KeptSamples:
    found = read_samples(run.path / "evaluation" / f"{split}-{step}" / NAME)
    assert found is not None, "evaluated() has seen it"
    return found


def _keys(names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The number of each sample by its name and, if several have one name, how many came before it."""
    seen: dict[str, int] = {}
    found = {}
    for number, name in enumerate(names):
        seen[name] = seen.get(name, -1) + 1
        found[name, seen[name]] = number
    return found


def _check_same_task(first: RunDir, mine: KeptSamples, run: RunDir, theirs: KeptSamples, split: str) -> None:
    """Raises `RunError` if the metrics of two runs do not mean the same."""
    if mine.kind != theirs.kind:
        raise RunError(Fault(what="the runs have different tasks, so their predictions cannot be compared",
                             where=str(run.path), given=f"{mine.kind} in {first.id}, {theirs.kind} in {run.id}",
                             remedy="Compare runs of one task."))
    if list(mine.outputs) != list(theirs.outputs):
        lists = [f"{', '.join(list(found.outputs)[:8])}{', ...' if len(found.outputs) > 8 else ''} in {one.id}"
                 for one, found in ((first, mine), (run, theirs))]
        raise RunError(Fault(what="the runs predict different classes, so their predictions cannot be compared",
                             where=str(run.path), given="\n".join(lists), remedy="Compare runs of one set of classes."))


def _check_same_targets(first: RunDir, mine: KeptSamples, run: RunDir, theirs: KeptSamples, split: str) -> None:
    """Raises `RunError` if samples of the same names have other targets."""
    one, other = mine.arrays.get("targets"), theirs.arrays.get("targets")
    if one is None or other is None:
        return
    same = one.shape == other.shape and bool((one == other).all())
    if not same:
        number = int((one != other).reshape(len(one), -1).any(1).argmax()) if one.shape == other.shape else 0
        raise RunError(Fault(what=f"the {split} sets of the runs have different targets for the same samples",
                             where=str(run.path), given=f"the first is {mine.names[number]}, which has another target "
                                                        f"in {first.id}",
                             remedy=f"Evaluate both on one set: drumbeat evaluate RUN --split {split}"))


def _units(samples: KeptSamples, pattern: str | None) -> tuple[NDArray[np.int64], bool]:
    """The number of the group of each sample, and whether there are groups. Raises `RunError` if the pattern matches no
    name."""
    groups = samples.groups
    if pattern is not None:
        found = [re.search(pattern, name) for name in samples.names]
        if not any(found):
            raise RunError(Fault(what="--group matches no sample's name", where="command line", given=pattern,
                                 remedy=f"The first name is {samples.names[0]}"))
        groups = [one[1] if one else name for one, name in zip(found, samples.names, strict=True)]
    if groups is None:
        return np.arange(len(samples)), False
    return np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64), True
