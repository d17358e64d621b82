"""What KEY=VALUE means in a sweep: several values to try, or a distribution to draw from.

    lr=1e-3,3e-4              these values                 (a list in a config's `sweep:` section)
    seed=0..4                 0, 1, 2, 3, 4                0..10..5 is 0, 5, 10
    lr=geomspace(1e-4,1e-1,4) 4 values with equal ratios   linspace(0,1,3) with equal distances, as in NumPy
    lr=loguniform(1e-5,1e-1)  a draw for each sample       uniform(A,B), randint(A,B), choice(A,B,...)

A comma between brackets, braces, parentheses or quotes belongs to the value. Anything else is one value.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, nearest
from drumbeat.configs.layers import leaves
from drumbeat.configs.yaml_text import inline

NUMBER = r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(?:\.\.({NUMBER}))?")
CALL = re.compile(r"([a-z]\w*)\((.*)\)", re.DOTALL)
DRAWS = ("choice", "uniform", "loguniform", "randint")
SPACES = ("linspace", "geomspace")
PAIRS = {"(": ")", "[": "]", "{": "}"}
MOST = 1_000_000
"""No list has more values."""


@dataclass(frozen=True)
class Draw:
    """A distribution, and its numbers or texts."""

    kind: str
    arguments: tuple[str, ...]

    def at(self, fraction: float) -> str:
        """The value at a fraction of the distribution, from 0 to below 1. Floats have six digits, so that a command can
        repeat them."""
        if self.kind == "choice":
            return self.arguments[int(fraction * len(self.arguments))]
        low, high = map(float, self.arguments)
        if self.kind == "randint":
            return str(int(low) + int(fraction * (int(high) - int(low) + 1)))
        if self.kind == "loguniform":
            return f"{math.exp(math.log(low) + fraction * (math.log(high) - math.log(low))):.6g}"
        return f"{low + fraction * (high - low):.6g}"


Values = tuple[str, ...] | Draw
"""The values of a key, as they are written in KEY=VALUE, or what they are drawn from."""


def fraction(seed: int, key: str, number: int) -> float:
    """A number from 0 to below 1 that depends on nothing but the sweep's seed, the key and the number of the draw: so a
    sweep with more draws repeats the first ones."""
    digest = hashlib.sha256(f"{seed}/{number}/{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def parse_words(typed: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The KEY=VALUE words that are plain changes, and the others: what is written behind each key. Raises `ConfigError`
    with all mistakes."""
    plain, space, faults = list[str](), dict[str, str](), list[Fault]()
    for word in typed:
        key, _, text = word.partition("=")
        try:
            one = values_of(key, text)
        except ConfigError as error:
            faults += error.faults
            continue
        if isinstance(one, tuple) and len(one) == 1 and one[0] == text:
            plain.append(word)
        else:
            space[key] = text
    if faults:
        raise ConfigError(*faults)
    return plain, space


def section(values: Mapping[str, Any]) -> dict[str, str]:
    """The `sweep:` section of a config, as it would be typed: its keys are dotted or nested, and a list is one of
    values. Raises `ConfigError`."""
    if empty := [key for key, value in leaves(values) if value == []]:
        raise ConfigError(*(Fault(what=f"{key} has no values", where="sweep", given=f"{key}: []",
                                  remedy="Remove it, or list some.") for key in empty))
    return {key: ",".join(map(inline, value)) if isinstance(value, list) else
            value if isinstance(value, str) else inline(value) for key, value in leaves(values)}


def values_of(key: str, text: str) -> Values:
    """What is tried for a key. Raises `ConfigError`."""
    call = CALL.fullmatch(text.strip())
    if call and call[1] in DRAWS:
        return _draw(key, text, call[1], _split(call[2]))
    found: list[str] = []
    parts = _split(text) or [""]
    if len(parts) > 1 and "" in parts:
        raise ConfigError(_fault(key, text, f"{key} has a value without text", "Remove a comma; or write null or ''."))
    for part in parts:
        found += _expanded(key, part)
    if len(set(found)) < len(found):
        twice = next(one for one in found if found.count(one) > 1)
        raise ConfigError(_fault(key, text, f"{key} has the value {twice} twice", "Remove one of them."))
    return tuple(found)


def _expanded(key: str, text: str) -> list[str]:
    """The values that an element of a list stands for."""
    if found := RANGE.fullmatch(text):
        return _range(key, text, *found.groups())
    call = CALL.fullmatch(text)
    if call and call[1] in SPACES:
        return _space(key, text, call[1], _split(call[2]))
    if call and call[1] in DRAWS:
        raise ConfigError(_fault(key, text, f"{call[1]}(...) cannot be one of several values",
                                 "Give either a list or a distribution."))
    if call and "," in call[2]:
        raise ConfigError(_fault(key, text, f"there is no {call[1]}(...)", nearest(call[1], [*DRAWS, *SPACES])))
    return [text]


def _range(key: str, text: str, first: str, last: str, step: str | None) -> list[str]:
    """The values from the first to the last, which is included."""
    whole = not re.search(r"[.eE]", first + last + (step or ""))
    if step is None and not whole:
        raise ConfigError(_fault(key, text, f"the range of {key} has no step", "For example: 0.1..0.5..0.1"))
    start, end, by = float(first), float(last), float(step or 1)
    if not all(map(math.isfinite, (start, end, by))) or by == 0 or (end - start) / by < 0:
        raise ConfigError(_fault(key, text, f"the range of {key} is empty",
                                 "Write FIRST..LAST, or FIRST..LAST..STEP; the step may be negative."))
    count = math.floor((end - start) / by + 1e-9) + 1
    _check_count(key, text, count)
    return [str(int(start + number * by)) if whole else f"{start + number * by:.12g}" for number in range(count)]


def _space(key: str, text: str, kind: str, arguments: list[str]) -> list[str]:
    """The values of linspace or geomspace: both ends are included."""
    low, high, count = _numbers(key, text, arguments, 3, f"{kind}(FIRST,LAST,COUNT)")
    if count != int(count) or count < 1:
        raise ConfigError(_fault(key, text, f"the range of {key} is empty", "COUNT is a whole number from 1."))
    if kind == "geomspace" and not (low > 0 and high > 0):
        raise ConfigError(_fault(key, text, "the ends of a geomspace are greater than 0", "Use linspace."))
    _check_count(key, text, int(count))
    parts = [number / max(1, int(count) - 1) for number in range(int(count))]
    return [f"{low * (high / low) ** part:.6g}" if kind == "geomspace" else f"{low + part * (high - low):.6g}"
            for part in parts]


def _draw(key: str, text: str, kind: str, arguments: list[str]) -> Draw:
    """The distribution with these arguments, once they are checked."""
    if kind == "choice":
        if not arguments:
            raise ConfigError(_fault(key, text, f"the choice of {key} is empty", "For example: choice(a,b)"))
        return Draw(kind, tuple(value for part in arguments for value in _expanded(key, part)))
    low, high = _numbers(key, text, arguments, 2, f"{kind}(LOW,HIGH)")
    if low > high or (kind == "loguniform" and low <= 0) or (kind == "randint" and (low % 1 or high % 1)):
        what = {"loguniform": "0 < LOW <= HIGH", "randint": "whole numbers with LOW <= HIGH"}.get(kind, "LOW <= HIGH")
        raise ConfigError(_fault(key, text, f"the range of {key} is empty", f"{kind}(LOW,HIGH) needs {what}."))
    return Draw(kind, tuple(arguments))


def _numbers(key: str, text: str, arguments: list[str], count: int, usage: str) -> list[float]:
    try:
        numbers = list(map(float, arguments))
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ConfigError(_fault(key, text, f"{usage.partition('(')[0]} has {count} numbers", f"Write {usage}."))
    return numbers


def _check_count(key: str, text: str, count: int) -> None:
    if count > MOST:
        raise ConfigError(_fault(key, text, f"{key} has {count:,} values", f"At most {MOST:,} are possible."))


def _split(text: str) -> list[str]:
    """The parts of a text between commas that are in no brackets and quotes, without the blanks around them."""
    parts, open_, quote, start = [], [], "", 0
    for place, one in enumerate(text):
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"" and not text[start:place].strip(" ([{,"):
            quote = one
        elif one in PAIRS:
            open_.append(PAIRS[one])
        elif open_ and one == open_[-1]:
            open_.pop()
        elif one == "," and not open_:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _fault(key: str, text: str, what: str, remedy: str) -> Fault:
    return Fault(what=what, where="command line", given=f"{key}={text}", remedy=remedy)
