"""Files that a dataset keeps open. Loader workers are forked, and processes that share an open file also share the
position at which it is read: one reads where another has just been, and gets a wrong sample without an error."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.errors import Fault

DESCRIPTORS = Path("/proc/self/fd")
MAPPED = Path("/proc/self/maps")


def positions() -> dict[int, int]:
    """The position of each regular file that this process has open, by descriptor."""
    found = {}
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError):  # the descriptor of the folder itself, which is closed again
            number = int(name)
            if stat.S_ISREG(os.fstat(number).st_mode):
                found[number] = os.lseek(number, 0, os.SEEK_CUR)
    return found


def opened_since(before: dict[int, int]) -> dict[int, int]:
    """The files of `positions` that have been opened since then."""
    return {number: at for number, at in positions().items() if number not in before}


def shared_files(opened: dict[int, int]) -> tuple[list[Fault], list[str]]:
    """A fault for the files in `opened` whose position has changed since, because samples were read, and a note for
    each of the others that is still open and not memory-mapped."""
    now, mapped = positions(), MAPPED.read_text()
    still = {number: str(DESCRIPTORS.joinpath(str(number)).readlink()) for number in opened if number in now}
    moved = sorted({file for number, file in still.items() if now[number] != opened[number]})
    others = sorted(file for file in {*still.values()} - {*moved} if file not in mapped)
    faults = [Fault(what="a dataset reads from a file that it has opened before the loader's workers start: they would "
                         "share its position, and read wrong samples", where="data", given="\n".join(moved),
                    remedy="Open the file when the first sample is read, in each process (store os.getpid() with it), "
                           "or read in this process: data.workers=0")] if moved else []
    return faults, [f"a dataset keeps {file} open, which the loader's workers will share: that is safe only if they do "
                    "not read it at its position" for file in others]
