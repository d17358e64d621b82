"""Prints what can complete a KEY=VALUE of `run`, `resume`, `fork` and the like: keys of the schema and of the config
that was typed, and values if there are only a few. The scripts of `completion.py` start it; it never imports torch.

    python config_keys.py WORD WORDS ...    WORD is the one to complete, WORDS are those before it
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from drumbeat.configs.errors import UserError
from drumbeat.configs.layers import file_layers, leaves, overlay
from drumbeat.configs.load import find, run_layer
from drumbeat.configs.schema import Config, Group, Phase

SAFE = re.compile(r"[\w.\-]+")
"""Keys and values with other characters are not offered: a shell might execute what they hold."""
OF_A_RUN = ("resume", "rerun", "fork", "--resume")
"""Words that a run comes after, and not a config."""


def candidates(word: str, before: Sequence[str]) -> list[str]:
    """The completions of a word: for a prefix of a key the parts up to the next dot ('data.', 'batch_size='); for KEY=
    the values."""
    choices = dict(keys(config_values(before)))
    key, equals, value = word.partition("=")
    if equals:
        return [f"{key}={choice}" for choice in choices.get(key, ()) if choice.startswith(value)]
    found = set()
    for full in filter(SAFE.fullmatch, choices):
        if full.startswith(word):
            part, dot, _ = full[len(word):].partition(".")
            found.add(f"{word}{part}{dot or '='}")
    return sorted(found)


def keys(values: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The dotted keys that can be set in a config, each with its values if there are only a few."""
    yield from ((key, ()) for key, _ in leaves(values))
    yield from _fields(Config, "")
    for phase in values.get("phases") or ():
        yield from _fields(Phase, f"phases.{phase}.")
        for group in (values["phases"][phase] or {}).get("groups") or ():
            yield from _fields(Group, f"phases.{phase}.groups.{group}.")


def config_values(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The values of the config or run that the arguments of a command line name; empty if there is none."""
    names = [word for word in arguments if "=" not in word and not word.startswith("-")]
    try:
        of_a_run = any(word in (*OF_A_RUN, "--at") for word in arguments)
        if not of_a_run and (path := next(filter(None, map(_config, names)), None)):
            return overlay(file_layers(path))[0]
        verb = next(number for number, word in enumerate(arguments) if word in (*OF_A_RUN, "sweep"))
        run = next(word for word in arguments[verb + 1:] if not word.startswith("-"))
        return overlay([run_layer(_run(run, arguments).config)])[0]
    except (UserError, OSError, StopIteration):
        return {}


def _run(name: str, arguments: Sequence[str]) -> Any:
    from drumbeat.launch.runs.find import find_run

    runs = next((after for word, after in pairwise(arguments) if word == "--runs"), "runs")
    return find_run(name, Path(runs))


def _config(name: str) -> Path | None:
    try:
        return find(name)
    except UserError:
        return None


def _fields(section: type, prefix: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _fields(typing.cast(type, hint), f"{prefix}{field.name}.")
        elif not str(hint).startswith("dict"):
            yield f"{prefix}{field.name}", _choices(hint)
        elif hint == dict[str, Any]:
            yield f"{prefix}{field.name}._target_", ()


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a type that has only a few: 'true' and 'false', those of a Literal, 'null'."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for one in typing.get_args(hint) for choice in _choices(one))
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, typing.get_args(hint)))
    return {bool: ("true", "false"), type(None): ("null",)}.get(hint, ())


if __name__ == "__main__":
    print("\n".join(candidates(sys.argv[1], sys.argv[2:])))
