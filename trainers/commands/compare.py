"""Compares the results of two runs: weights, ledger, curves.

    python -m drumbeat.trainers.commands.compare RUN OTHER [exact]

prints a JSON list of the differences and errors.

With `exact`, bit for bit. Without, the number of ranks was different, so metrics may differ within `BAND`; runs with
`virtual_ranks` are compared exactly then too.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.terminal import print_text_only
from drumbeat.trainers.commands.verify import verify

BAND = 0.15
"""The largest difference of a metric between runs on different numbers of ranks, in which BatchNorm sees other parts of
each batch and dropout drops other units. Relative to the value, or absolute if that is smaller than 1."""


def differences(run: RunDir, other: RunDir, *, exact: bool) -> list[str]:
    """The errors of `run`, and its differences from `other`."""
    found = [fault for phase in verify(run).phases for fault in phase.faults]
    mine, theirs = Result.require(run.result), Result.require(other.result)
    if exact:
        one, two = mine.as_json(), theirs.as_json()
        found += [f"{name}: {one.get(name)} instead of {two.get(name)}" for name in sorted({*one, *two})
                  if name not in ("nondeterministic_operations", "changes") and not _same(one.get(name), two.get(name))]
    if (mine.steps, mine.samples_seen) != (theirs.steps, theirs.samples_seen):
        found.append(f"{mine.steps} steps and {mine.samples_seen} samples instead of {theirs.steps} and "
                     f"{theirs.samples_seen}")
    if not exact:
        found += [f"{name} {mine.last.get(name, math.nan):.4f}, and {value:.4f} without a change of ranks: more than "
                  f"{BAND} apart" for name, value in theirs.last.items() if isinstance(value, float)
                  and not _near(mine.last.get(name, math.nan), value)]
    return found + _curves_differ(curves(run.tensorboard), curves(other.tensorboard), exact=exact)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each curve as TensorBoard shows them, without speed, which differs between runs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]
            if not name.startswith("speed/")}


def _curves_differ(mine: dict[str, Any], theirs: dict[str, Any], *, exact: bool) -> list[str]:
    found = []
    for name in sorted({*mine, *theirs}):
        points, others = mine.get(name, []), theirs.get(name, [])
        steps = [step for step, _ in points]
        if len(set(steps)) < len(steps):
            found.append(f"curve {name}: {len(steps) - len(set(steps))} steps appear twice")
        elif steps != [step for step, _ in others]:
            found.append(f"curve {name}: {len(points)} points instead of {len(others)}")
        elif exact and not _same(points, others):
            found.append(f"curve {name}: different values")
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether the texts of two values are equal; unlike with `==`, NaN equals NaN."""
    return repr(one) == repr(other)


def _near(one: float, other: float) -> bool:
    """Whether two metrics differ by at most `BAND`, or are both NaN."""
    return abs(one - other) <= BAND * max(1.0, abs(other)) or (math.isnan(one) and math.isnan(other))


def main(run: str, other: str, exact: bool) -> None:
    """Prints the differences; and to stderr, why the last bits of the runs may differ without an error."""
    runs = RunDir(Path(run)), RunDir(Path(other))
    print(json.dumps(differences(*runs, exact=exact)))
    for note in dict.fromkeys(filter(None, map(claim, runs))):
        print(f"note: {note}", file=sys.stderr)


if __name__ == "__main__":
    print_text_only()
    main(sys.argv[1], sys.argv[2], "exact" in sys.argv[3:])
