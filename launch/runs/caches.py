"""Decoded images (`data.cache`) of datasets that no run uses any more.

A cache's folder is NAME-DIGEST, and NAME is the last part of the path of the dataset (`data/cache.py`). Which dataset
that is cannot be known without building it, but a run whose config does not have this name anywhere in its section
`data` does not use the cache. Runs below other folders are not known: they only have to decode the images again.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from drumbeat.configs.layers import short
from drumbeat.configs.load import plain, read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import ENDED, Status
from drumbeat.launch.runs.leftovers import Leftover

CACHE = re.compile(r"(.+)-[0-9a-f]{8}")
"""The name of the folder of a cache."""
FILES = re.compile(r"pixels\.bin|index\.npy|lock|\.index\.[0-9]+\.tmp")
"""What is in it. A folder with anything else is not a cache."""


def orphaned(runs: Iterable[RunDir]) -> list[Leftover]:
    """The caches of this user in the folders that the configs of runs name, which no config of a run uses. None in the
    folders that runs use which have not ended. Raises `UserError` if a config cannot be read: that run may use any."""
    folders: set[Path] = set()
    used: set[Path] = set()
    names: set[str] = set()
    for run in runs:
        config, status = read(run.config), Status.read(run.status)
        names |= {part for text in _texts(plain(config)["data"]) for part in PurePath(text).parts}
        if config.data.cache:
            folders.add(Path(config.data.cache))
            if status is None or status.state not in ENDED:
                used.add(Path(config.data.cache))
    return [Leftover(short(folder), "cache of decoded images", cache) for folder in sorted(folders - used)
            for cache, name in _caches(folder) if name not in names]


def _texts(value: Any) -> Iterator[str]:
    """All texts in a part of a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def is_filling(cache: Path) -> bool:
    """Whether a process fills a cache at present."""
    try:  # nobody may read it: `data/shared_folder.py`
        handle = os.open(cache / "lock", os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _caches(folder: Path) -> Iterator[tuple[Path, str]]:
    """The caches of this user in a folder that are not being filled, each with the name of its dataset."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path, found = Path(entry.path), CACHE.fullmatch(entry.name)
        if found and entry.is_dir(follow_symlinks=False) and os.geteuid() in (
                0, entry.stat(follow_symlinks=False).st_uid):
            files = os.listdir(path)
            if {"pixels.bin", "lock"} & {*files} and all(map(FILES.fullmatch, files)) and not is_filling(path):
                yield path, found[1]
