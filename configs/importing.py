"""Where Python finds Drumbeat and the user's code.

    python -m drumbeat.configs.importing MODULE [ARGUMENT ...]      runs a module with the user's folders on the path

The user's folders (the current folder and those in PYTHONPATH) come after the standard library and before installed
packages: a user's `data/` or `tqdm/` is found before an installed package of that name, and a user's `random.py` does
not hide the one that Python needs. Drumbeat is imported from a folder that contains nothing else, so it reserves no
name but its own.
"""

from __future__ import annotations

import os
import runpy
import site
import sys
from collections.abc import Sequence
from pathlib import Path

import drumbeat

PACKAGE = Path(drumbeat.__path__[0])
"""The folder of the package `drumbeat`; in a clone it contains links."""
HOME = PACKAGE.parent
"""The folder on Python's path that contains it: src/ in a clone, site-packages if it is installed."""
IS_CLONE = Path(__file__).resolve().parent.parent != PACKAGE.resolve()
"""Whether `HOME` is the src/ of a clone, which contains only Drumbeat."""

USER_PATH = "DRUMBEAT_USER_PATH"
"""The environment variable with the user's folders."""


def python_path() -> list[str]:
    """The folders in the user's PYTHONPATH, absolute; without `HOME`, which our own programs add."""
    listed = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [str(folder) for folder in dict.fromkeys(listed) if not (IS_CLONE and folder == HOME)]


def environment(folder: str, python_path: Sequence[str], more: Sequence[str] = (), home: str = str(HOME)
                ) -> dict[str, str]:
    """The environment variables with which a process finds Drumbeat in `home`, and the user's code in `folder`,
    `python_path` and `more`. `python_path` stays in PYTHONPATH, for programs that the user's code starts."""
    own = [] if home in installed() else [home]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*own, *python_path])), "PYTHONSAFEPATH": "1",
            USER_PATH: os.pathsep.join(dict.fromkeys([folder, *python_path, *more]))}


def installed() -> list[str]:
    """The folders of installed packages."""
    return [*site.getsitepackages(), site.getusersitepackages()]


def add_user_path(folders: Sequence[str] | None = None) -> None:
    """Adds the user's folders, by default those in `USER_PATH`, to `sys.path`, before installed packages."""
    if folders is None:
        folders = [folder for folder in os.environ.get(USER_PATH, "").split(os.pathsep) if folder]
    rest = [entry for entry in sys.path if entry not in folders]
    at = next((number for number, entry in enumerate(rest) if entry in installed()), len(rest))
    sys.path[:] = [*rest[:at], *folders, *rest[at:]]


if __name__ == "__main__":
    add_user_path()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
