"""Checks before a command starts a program: that datasets, checkpoints and the given files exist.

They use only the config and the file system, so that the launcher can report faults at once: importing torch takes
seconds.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.merge import is_path
from drumbeat.configs.schema import Config

SPLITS = ("train", "validation", "test")
FROM_DATA = "from_data"
"""The value of a model's argument that is taken from the training set."""


def check_split(config: Config, split: str) -> None:
    """Checks that the run has this dataset. Raises `RunError`."""
    if not getattr(config.data, split):
        existing = [name for name in SPLITS if getattr(config.data, name)]
        raise RunError(Fault(what=f"the run has no {split} set", where=f"data.{split}", given=f"--split {split}",
                             remedy=f"It has: {', '.join(existing)}."))


def check_data(config: Config, *, fixed: bool = False) -> None:
    """Checks that the files and folders of Drumbeat's datasets exist, and that the folders are not empty. Raises
    `PreflightError` with all that do not. Arguments of the user's own datasets are not checked. `fixed` is for a run's
    config, whose values cannot be changed."""
    faults = {text: Fault(what=wrong, where=key, given=text) for text, key in data_paths(config).items()
              if (wrong := wrong_with(Path(text)))}
    if faults:
        raise PreflightError(*with_hint(merged([*faults.values()], config.data.root), config.data.download_hint,
                                        fixed=fixed))


def data_paths(config: Config) -> dict[str, str]:
    """The files and folders of Drumbeat's datasets, each with the first dotted key that names it."""
    found: dict[str, str] = {}
    for split in SPLITS:
        for key, text in _paths(getattr(config.data, split), f"data.{split}"):
            found.setdefault(text, key)
    return found


def wrong_with(path: Path) -> str:
    """Why a file or folder cannot be read, as text, as `unreadable`, or that the folder is empty; '' if it can be read.
    """
    if wrong := unreadable(path):
        return wrong
    try:
        with os.scandir(path) as entries:  # not iterdir, which lists the whole folder before Python 3.13
            return "" if next(entries, None) else f"the folder {short(path)} is empty"
    except NotADirectoryError:
        return ""
    except OSError as error:
        return _reason(path, error)


def unreadable(path: Path) -> str:
    """Why a file or folder cannot be looked at, as text: it does not exist, this user has no permission, or the disk
    says; '' if it can."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return f"{short(path)} does not exist"
    except OSError as error:
        return _reason(path, error)
    return ""


def _reason(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"you have no permission to read {short(path)}"
    return f"{short(path)} cannot be read: {error.strerror}"


def check_inputs(paths: Sequence[Path], config: Config) -> None:
    """Checks that the inputs of a prediction exist and fit the run's model. Raises `RunError`."""
    for path in paths:
        wrong = wrong_with(path)
        if wrong.endswith("does not exist"):
            raise RunError(Fault(what=f"there is no file or folder '{path}'", where=str(path.absolute().parent)))
        if path.is_dir() and reads_texts(config):
            column = innermost(config.data.train).get("text", "text")
            raise RunError(Fault(what="the run's model reads texts, but this is a folder", where=short(path),
                                 remedy=f"Give a table with a column '{column}', or a .txt file with one text per "
                                        "line."))
        if wrong:
            raise RunError(Fault(what="this folder is empty" if wrong.endswith("is empty") else wrong,
                                 where=short(path)))


def reads_texts(config: Config) -> bool:
    """Whether the training set is a `drumbeat.data.Texts`."""
    return str(innermost(config.data.train).get("_target_")) == "drumbeat.data.Texts"


def needs_data(node: Any) -> bool:
    """Whether an argument of the model is `from_data`, so that the model needs the training set."""
    if isinstance(node, Mapping):
        return any(map(needs_data, node.values()))
    return any(map(needs_data, node)) if isinstance(node, list | tuple) else bool(node == FROM_DATA)


def innermost(node: Any) -> Any:
    """The section of the dataset that `node` describes or, through any number of splits, is a part of."""
    while "of" in node:
        node = node["of"]
    return node


def with_hint(faults: Sequence[Fault], download_hint: str, *, fixed: bool = False) -> list[Fault]:
    """The faults, with the config's download hint as the remedy of the last fault of a dataset. `fixed` is for a run's
    config, whose values cannot be changed."""
    of_sets = [fault for fault in faults if fault.where.split(".")[1:2] in ([part] for part in ("root", *SPLITS))
            and not fault.remedy]
    return [dataclasses.replace(fault, remedy="\n".join(filter(None, [download_hint.rstrip(), (
        "If it is elsewhere: data.root=DIR" if fault.where == "data.root" and not fixed else "")])))
            if fault in of_sets[-1:] else fault for fault in faults]


def merged(faults: Sequence[Fault], root: str | None) -> list[Fault]:
    """The faults of datasets without repetition: one fault if the folder `root` does not exist, and one fault, with the
    names of the datasets, for what several have in common."""
    inside = [fault for fault in faults if root and (root in fault.what or root in fault.given)]
    if root and inside and not Path(root).exists():
        missing = Fault(what=f"the folder of the data does not exist: {root}", where="data.root")
        faults = [missing, *(fault for fault in faults if fault not in inside)]
    names: dict[Fault, list[str]] = {}
    for fault in faults:  # faults with a remedy are kept: it refers to one place in the config
        names.setdefault(fault if fault.remedy else dataclasses.replace(fault, where=""), []).append(fault.where)
    return [dataclasses.replace(fault, where=where[0], what=fault.what if len(where) == 1 else
                                f"{fault.what} ({', '.join('.'.join(key.split('.')[:2]) for key in where)})")
            for fault, where in names.items()]


def _paths(node: Any, key: str, *, ours: bool = False) -> Iterator[tuple[str, str]]:
    """The dotted key and the value of each path in the arguments of Drumbeat's datasets, without paths that begin with
    a $VARIABLE, which only the machine that uses them can check."""
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
