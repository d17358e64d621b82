"""What must be there before a verb is worth its while: checkpoints, sets, and what a person hands over.

All of it is told from the config and the file system, so that the launcher can say it at once; torch takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.merge import is_path
from drumbeat.configs.schema import Config

SPLITS = ("train", "validation", "test")
FROM_DATA = "from_data"
"""What an argument of the model says that only the training set knows."""


def check_split(config: Config, split: str) -> None:
    """That the run has this set. Raises `RunError`."""
    if not getattr(config.data, split):
        there = [name for name in SPLITS if getattr(config.data, name)]
        raise RunError(Fault(what=f"the run has no {split} set", where=f"data.{split}", given=f"--split {split}",
                             remedy=f"It has: {', '.join(there)}."))


def check_data(config: Config, *, fixed: bool = False) -> None:
    """That the files and folders which our own sets read are there, and the folders not empty. Raises `PreflightError`
    with each that is not. What a user's own set does with its arguments, only the set knows. `fixed` is for a run's
    config, of which no value can be given anew."""
    faults: dict[str, Fault] = {}
    for split in SPLITS:
        for key, text in _paths(getattr(config.data, split), f"data.{split}"):
            path = Path(text)
            if wrong := wrong_with(path):
                faults.setdefault(text, Fault(what=wrong, where=key, given=text))
    if faults:
        raise PreflightError(*with_way_out(once([*faults.values()], config.data.root), config.data.download_hint,
                                           fixed=fixed))


def wrong_with(path: Path) -> str:
    """Why a file or folder cannot be read, as text: it does not exist, is empty, or this user has no permission; '' if
    it can be read."""
    try:
        if not path.exists():
            return f"{short(path)} does not exist"
        return f"the folder {short(path)} is empty" if path.is_dir() and not any(path.iterdir()) else ""
    except PermissionError:
        return f"you may not read {short(path)}"


def check_given(paths: Sequence[Path], config: Config) -> None:
    """That what is to be predicted is there, and of a kind that the run's model takes; and the training texts, beside
    which a text model's vocabulary lies. Raises `RunError` and `PreflightError`."""
    for path in paths:
        wrong = wrong_with(path)
        if wrong.endswith("does not exist"):
            raise RunError(Fault(what=f"there is no file or folder '{path}'", where=str(path.absolute().parent)))
        if path.is_dir() and reads_texts(config):
            column = innermost(config.data.train).get("text", "text")
            raise RunError(Fault(what="the run's model reads texts, and this is a folder", where=short(path),
                                 remedy=f"Give a table with a column '{column}', or a .txt file with a text on each "
                                        "line."))
        if wrong:
            raise RunError(Fault(what="this folder is empty" if wrong.endswith("is empty") else wrong,
                                 where=short(path)))
    if reads_texts(config):
        check_data(config, fixed=True)


def reads_texts(config: Config) -> bool:
    """Whether the training set is our own set of texts."""
    return str(innermost(config.data.train).get("_target_")) == "drumbeat.data.Texts"


def needs_data(node: Any) -> bool:
    """Whether the model, or a part of its section, can only be built once the training set is known."""
    if isinstance(node, Mapping):
        return any(map(needs_data, node.values()))
    return any(map(needs_data, node)) if isinstance(node, list | tuple) else bool(node == FROM_DATA)


def innermost(node: Any) -> Any:
    """The section of a config that a set is a part of, itself or through others."""
    while "of" in node:
        node = node["of"]
    return node


def with_way_out(faults: Sequence[Fault], download_hint: str, *, fixed: bool = False) -> list[Fault]:
    """Where sets are not as they should be, the config's own words on how to get them: once, behind the last. `fixed`
    is for a run's config, of which no value can be given anew."""
    lost = [fault for fault in faults if fault.where.split(".")[1:2] in ([part] for part in ("root", *SPLITS))
            and not fault.remedy]
    return [dataclasses.replace(fault, remedy="\n".join(filter(None, [download_hint.rstrip(), (
        "If it is elsewhere: data.root=DIR" if fault.where == "data.root" and not fixed else "")])))
            if fault in lost[-1:] else fault for fault in faults]


def once(faults: Sequence[Fault], root: str | None) -> list[Fault]:
    """The faults of sets: those of sets in a folder that does not exist as one, and as one what several have in common,
    with the names of the sets."""
    inside = [fault for fault in faults if root and (root in fault.what or root in fault.given)]
    if root and inside and not Path(root).exists():
        gone = Fault(what=f"the folder of the data does not exist: {root}", where="data.root")
        faults = [gone, *(fault for fault in faults if fault not in inside)]
    names: dict[Fault, list[str]] = {}
    for fault in faults:  # a remedy is for the place in the config, and each has its own
        names.setdefault(fault if fault.remedy else dataclasses.replace(fault, where=""), []).append(fault.where)
    return [dataclasses.replace(fault, where=where[0], what=fault.what if len(where) == 1 else
                                f"{fault.what} ({', '.join('.'.join(key.split('.')[:2]) for key in where)})")
            for fault, where in names.items()]


def _paths(node: Any, key: str, *, ours: bool = False) -> Iterator[tuple[str, str]]:
    """The dotted key and the value of each path that our own sets are given; one that begins with a $VARIABLE can only
    be looked for on the machine that uses it."""
    if isinstance(node, Mapping):
        ours = str(node["_target_"]).startswith("drumbeat.data.") if "_target_" in node else ours
        for name, value in node.items():
            if ours and is_path(name, value) and not value.startswith("$"):
                yield f"{key}.{name}", value
            else:
                yield from _paths(value, f"{key}.{name}", ours=ours)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _paths(value, f"{key}[{number}]", ours=ours)
