"""The trials of a sweep: every point of its lists, for each draw from its distributions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from drumbeat.configs.errors import ConfigError, Fault, nearest
from drumbeat.configs.run.sweep import Trial
from drumbeat.launch.sweeps.notation import Draw, Values, fraction, values_of

MOST = 100_000
"""No sweep has more trials."""
CHECKED = 6
"""How many trials are checked before the start: each takes a tenth of a second."""
STRUCTURE = ("model", "data", "task", "initialize")
"""The sections of a config that the preflight check is about; and the targets of optimizers and schedules."""


def spread(space: Mapping[str, str], samples: int | None, seed: int) -> list[dict[str, str]]:
    """The values of each trial: for each draw all points of the lists, in which the last key changes fastest. Trial i
    does not depend on the number of draws. Raises `ConfigError`."""
    values = {key: values_of(key, text) for key, text in space.items()}
    draws = {key: one for key, one in values.items() if isinstance(one, Draw)}
    lists = {key: one for key, one in values.items() if not isinstance(one, Draw)}
    _check_count(math.prod(map(len, lists.values())) * (samples or 1), draws, samples)
    found = []
    for number in range(samples or 1):
        drawn = {key: draw.at(fraction(seed, key, number)) for key, draw in draws.items()}
        for point in itertools.product(*lists.values()):
            chosen = drawn | dict(zip(lists, point, strict=True))
            found.append({key: chosen[key] for key in space})
    return found


def _check_count(count: int, draws: Mapping[str, Values], samples: int | None) -> None:
    if draws and samples is None:
        key = next(iter(draws))
        raise ConfigError(Fault(what=f"{key} is drawn, and the number of draws is not given", where="command line",
                                remedy="Add it: --sample 40"))
    if samples is not None and (samples < 1 or not draws):
        raise ConfigError(Fault(what="nothing is drawn" if samples > 0 else "the number of draws is at least 1",
                                where="command line", given=f"--sample {samples}",
                                remedy="Give a key a distribution: KEY=loguniform(1e-5,1e-1) or KEY=choice(A,B)"))
    if count > MOST:
        raise ConfigError(Fault(what=f"the sweep has {count:,} trials", where="command line",
                                remedy=f"At most {MOST:,} are possible. Draw some of the values instead of listing "
                                       "them: KEY=choice(A,B,C) --sample N"))


def numbered(points: Sequence[Mapping[str, str]], before: Sequence[Trial] = ()) -> tuple[Trial, ...]:
    """The trials of a sweep that had the trials `before`: those, and one for each point that is not among them."""
    known = {tuple(trial.values.items()) for trial in before}
    new = [point for point in points if tuple(point.items()) not in known]
    return (*before, *(Trial(number=len(before) + place, values=dict(point)) for place, point in enumerate(new)))


def united(before: Mapping[str, str], typed: Mapping[str, str]) -> dict[str, str]:
    """The space of a sweep that is extended: lists get more values, and distributions stay. Raises `ConfigError`."""
    space = dict(before)
    for key, text in typed.items():
        if key not in before:
            raise ConfigError(Fault(what=f"{key} does not vary in this sweep", where="command line",
                                    given=f"{key}={text}", remedy=nearest(key, before)))
        old, new = values_of(key, before[key]), values_of(key, text)
        if isinstance(old, Draw) or isinstance(new, Draw):
            raise ConfigError(Fault(what="a distribution cannot be extended", where="command line",
                                    given=f"{key}={text}", remedy="Draw more from it: --sample N"))
        space[key] = ",".join(dict.fromkeys([*old, *new]))
    return space


def covering(trials: Sequence[Trial], most: int = CHECKED) -> list[Trial]:
    """A few trials that have between them the smallest and the largest of each key's numbers, and its texts: what is
    wrong with the values of a sweep is wrong with one of these."""
    chosen: dict[int, Trial] = {}
    for wanted in _extremes(trials):
        if len(chosen) == most:
            break
        if not any(wanted.items() <= trial.values.items() for trial in chosen.values()):
            found = next(trial for trial in trials if wanted.items() <= trial.values.items())
            chosen[found.number] = found
    return list(chosen.values()) or list(trials[:1])


def _extremes(trials: Sequence[Trial]) -> Iterator[dict[str, str]]:
    """Single values that some trial has: of all keys in turn, so that each has its first ones among the first."""
    columns = []
    for key in trials[0].values if trials else ():
        distinct = list(dict.fromkeys(trial.values[key] for trial in trials))
        numbers = {text: value for text in distinct if (value := _number(text)) is not None}
        ends = [min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)] if numbers else []
        columns.append([{key: text} for text in dict.fromkeys([*ends, *(t for t in distinct if t not in numbers)])])
    for row in itertools.zip_longest(*columns):
        yield from filter(None, row)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def structures(trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of each combination of values that change what the preflight check builds."""
    def shape(trial: Trial) -> tuple[tuple[str, str], ...]:
        return tuple((key, value) for key, value in trial.values.items()
                     if key.partition(".")[0] in STRUCTURE or key.endswith("_target_"))

    return list({shape(trial): trial for trial in reversed(trials)}.values())[::-1]
