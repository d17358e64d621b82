"""Where Python finds Drumbeat, and where it finds what is the user's.

    python -m drumbeat.configs.importing MODULE [ARGUMENT ...]      runs a module with the user's folders on the path

A user's own folders (the one the command is typed in, and those in PYTHONPATH) come behind the standard library and
before installed packages: a lab's `data/` or `tqdm/` is found before an installed package of that name, and its
`random.py` hides nothing that Python itself needs. Drumbeat is reached through a folder that holds nothing else, so it
takes no name but its own.
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
"""The folder of the package `drumbeat`; in a clone it holds links."""
HOME = PACKAGE.parent
"""The folder in which Python finds it: src/ in a clone, site-packages where it is installed."""
IS_CLONE = Path(__file__).resolve().parent.parent != PACKAGE.resolve()
"""Whether `HOME` is a clone's, with nothing in it but Drumbeat."""

USER_PATH = "DRUMBEAT_USER_PATH"
"""The variable that tells a process the user's folders."""


def python_path() -> list[str]:
    """The folders in the user's PYTHONPATH, absolute; not a clone's, which a program that we started finds there."""
    listed = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [str(folder) for folder in dict.fromkeys(listed) if not (IS_CLONE and folder == HOME)]


def environment(folder: str, python_path: Sequence[str], more: Sequence[str] = (), home: str = str(HOME)
                ) -> dict[str, str]:
    """The variables with which a process finds Drumbeat in `home`, and the user's code in `folder`, `python_path` and
    `more`. `python_path` also stays in PYTHONPATH, for programs that the user's code starts."""
    own = [] if home in installed() else [home]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*own, *python_path])), "PYTHONSAFEPATH": "1",
            USER_PATH: os.pathsep.join(dict.fromkeys([folder, *python_path, *more]))}


def installed() -> list[str]:
    """The folders of installed packages."""
    return [*site.getsitepackages(), site.getusersitepackages()]


def add_user_path(folders: Sequence[str] | None = None) -> None:
    """Puts the user's folders, by default those that `USER_PATH` names, at their place in `sys.path`."""
    if folders is None:
        folders = [folder for folder in os.environ.get(USER_PATH, "").split(os.pathsep) if folder]
    rest = [entry for entry in sys.path if entry not in folders]
    at = next((number for number, entry in enumerate(rest) if entry in installed()), len(rest))
    sys.path[:] = [*rest[:at], *folders, *rest[at:]]


if __name__ == "__main__":
    add_user_path()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
