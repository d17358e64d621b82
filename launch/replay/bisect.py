"""`drumbeat bisect A B`: the first step in which two runs differ, and what differs in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import plain, read
from drumbeat.configs.run.changes import differences, rule_of
from drumbeat.configs.run.code_files import differing_files
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.replay_records import ReplayedStep
from drumbeat.configs.run.step_log import StepLog, first_difference
from drumbeat.configs.run.view import View
from drumbeat.configs.secrets import literal_secrets
from drumbeat.configs.yaml_text import inline
from drumbeat.launch.plan.snapshot import Snapshot, newest_code
from drumbeat.launch.replay.replay import LABEL, different_versions
from drumbeat.launch.replay.replay import first_difference as not_reproduced
from drumbeat.launch.replay.scratch import compute, interval, scratch

MOST = 8
"""The largest number of keys, parameters or samples that are named."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay has computed in its last step."""

    ranks: Sequence[ReplayedStep]
    exact: bool
    """Whether it agrees with the run's log."""

    @property
    def samples(self) -> dict[int, str]:
        """The samples of all ranks by their positions."""
        return {position: f"{index}{f' ({name})' if name else ''}" for rank in self.ranks
                for position, index, name in zip(rank.positions, rank.indices, rank.names or [""] * len(rank.indices),
                                                 strict=True)}


def bisect(one: RunDir, other: RunDir, *, replays: bool) -> int:
    """Prints the first step in which two runs differ. With `replays`, both compute it again, and what differs in it is
    printed. Returns 0 if no step differs, otherwise 1. Raises `RunError`."""
    logs = [StepLog.read(run) for run in (one, other)]
    for run, log in zip((one, other), logs, strict=True):
        if not log.last:
            raise RunError(Fault(what=f"run {run.id} has no step log", where=short(run.attempts),
                                 given="no attempts/*/steps.bin with a step",
                                 remedy="The log is written with the points of the curves and with checkpoints. An "
                                        "older Drumbeat wrote none."))
    for name, run, log in zip("AB", (one, other), logs, strict=True):
        skipped = sum(found.skipped for found in map(log.step, log.steps()) if found)
        print(_line(f"run {name}", f"{run.path.parent.name}/{run.id}: {log.last:,} steps"
                                   f"{f', {skipped:,} of them skipped' if skipped else ''}"))
    for text in differing_keys(one, other):
        print(_line("differs", text))
    both = min(log.last for log in logs)
    if (step := first_difference(*logs)) is None:
        longer = "" if logs[0].last == logs[1].last else ", which is where the shorter one ends"
        print(_line("verdict", f"no step differs up to step {both:,}{longer}"))
        return 0
    print(_line("step", f"{step:,} is the first of {both:,} that differs"))
    for name, log in zip("AB", logs, strict=True):
        found = log.step(step)
        assert found is not None
        print(_line(f"  in {name}", f"loss {found.loss:.9g}, gradient {found.digest:016x}"
                                    f"{', skipped' if found.skipped else ''}"), flush=True)
    if replays:
        work = [interval(run, step, log) for run, log in zip((one, other), logs, strict=True)]
        for name, part in zip("AB", work, strict=True):
            print(_line(f"replay {name}", part.text), flush=True)
        mine, theirs = (_replayed(run, step, log) for run, log in zip((one, other), logs, strict=True))
        for label, text in found_in(mine, theirs):
            print(_line(label, text))
    return 1


def _replayed(run: RunDir, step: int, log: StepLog) -> Replayed:
    """Computes a step of a run again."""
    work = interval(run, step, log)
    with scratch(work) as folder:
        exact = not_reproduced(work, log, compute(folder)) is None
        attempt = folder.newest_attempt()
        assert attempt is not None
        ranks = [ReplayedStep.require(attempt.replayed(rank)) for rank in range(work.ranks)]
    return Replayed(ranks=ranks, exact=exact)


def found_in(mine: Replayed, theirs: Replayed) -> Iterator[tuple[str, str]]:
    """What differs between two replays of a step: labels and sentences."""
    for name, one in (("A", mine), ("B", theirs)):
        if not one.exact:
            yield "note", (f"the replay of {name} differs from its log, so what follows may have another cause: "
                           "drumbeat replay says more")
    yield "samples", _samples(mine.samples, theirs.samples)
    yield "layer", _parameters(mine.ranks[0].gradients, theirs.ranks[0].gradients)


def _samples(mine: Mapping[int, str], theirs: Mapping[int, str]) -> str:
    """In which samples two batches differ."""
    if mine == theirs:
        return f"both used the same {len(mine):,}"
    places = sorted(place for place in {*mine, *theirs} if mine.get(place) != theirs.get(place))
    shown = [f"position {place:,}: {_sample(mine, place)} in A, {_sample(theirs, place)} in B"
             for place in places[:MOST]]
    return f"{len(places):,} differ; {'; '.join(shown)}{_more(places)}"


def _sample(samples: Mapping[int, str], place: int) -> str:
    return f"sample {samples[place]}" if place in samples else "none"


def _parameters(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """In which parameters two gradients differ. The last one of the model is the first in the backward pass."""
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)][::-1]
    if not names:
        return "all parameters have the same gradient: the loss alone differs"
    total = len({**mine, **theirs})
    others = f", then {', '.join(names[1:MOST])}{_more(names)}" if len(names) > 1 else ""
    return (f"{names[0]} is the first in the backward pass whose gradient differs{others}: {len(names)} of {total} "
            "parameters")


def differing_keys(one: RunDir, other: RunDir) -> list[str]:
    """What may be the cause: in which config keys, code, versions and hardware two runs differ, a sentence for each."""
    mine, theirs = plain(read(one.config)), plain(read(other.config))
    secret = {*literal_secrets(mine), *literal_secrets(theirs)}
    found = [f"{key}: {_value(key, old, secret)} in A, {_value(key, new, secret)} in B"
             for key, old, new in differences(mine, theirs) if key != "name" and rule_of(key).effect != "none"]
    found = found[:MOST] + ([f"{len(found) - MOST} more keys of the config"] if len(found) > MOST else [])
    views = View.read(one), View.read(other)
    shapes = [view.plan.topology for view in views]
    virtual = mine.get("virtual_ranks") is not None and mine.get("virtual_ranks") == theirs.get("virtual_ranks")
    for name, before, after in (("ranks", *(0 if virtual else shape.world_size for shape in shapes)),
                                ("threads of a rank", *(shape.threads for shape in shapes))):
        found += [f"{name}: {before} in A, {after} in B"] if before != after else []
    found += _code(one, other)
    if views[0].versions and views[1].versions:
        found += different_versions(views[0].versions.versions, views[1].versions.versions, "in A", "in B")
    return found


def _code(one: RunDir, other: RunDir) -> list[str]:
    """In which files the code of two runs differs, by their copies of it."""
    codes = [newest_code(run.path) for run in (one, other)]
    copies = [code for code in codes if code]
    if len(copies) == 2:
        files = differing_files(*copies)
        return [f"code: {', '.join(files[:MOST])}{_more(files)}"] if files else []
    texts = [Snapshot.require(code / "snapshot.json").text() if code else "not copied" for code in codes]
    return [f"code: {texts[0]} in A, {texts[1]} in B"] if copies else []


def _value(key: str, value: object, secret: set[str]) -> str:
    return "(secret)" if key in secret else inline(value)


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - MOST:,} more" if len(items) > MOST else ""


def _line(label: str, text: str) -> str:
    return hang(f"{label:<{LABEL}}", text)
