"""Which files are the code in a folder: those git knows or would add; without git, those Python could import; of
Drumbeat's own package all, its style sheets and configs too."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.importing import PACKAGE

MOST_ENTRIES = 50_000
"""A folder without git that holds more than this is not looked through for Python files."""


def git(folder: Path, *words: str) -> bytes | None:
    """What git says in a folder; None where it refuses, and where there is no git.

    Whose tree it is does not matter to us (safe.directory), since the run is about to execute what lies in it.
    """
    if shutil.which("git") is None:
        return None
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a git hook
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *words]
    done = subprocess.run(command, cwd=folder, env=ours, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def git_root(folder: Path) -> Path | None:
    """The top of the git tree that a folder is part of; None where it is part of none, or ignored there."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top or git(folder, "check-ignore", "--quiet", ".") is not None:
        return None
    return Path(os.fsdecode(top.removesuffix(b"\n")))


def code_files(root: Path, leave_out: Path) -> list[Path]:
    """The files and links below `root` that are its code, relative to it, but for what lies below `leave_out`.

    Raises `LaunchError` for a folder without git that is too large to look through.
    """
    if root == PACKAGE.resolve():
        return [file.relative_to(root) for file in sorted(root.rglob("*")) if file.is_file() and file.suffix != ".pyc"]
    known = _known_to_git(root) if (root / ".git").exists() else None
    files = _python_files(root, leave_out) if known is None else known
    return [file for file in files if not (root / file).is_relative_to(leave_out) and _is_file_or_link(root / file)]


def _known_to_git(root: Path) -> list[Path] | None:
    """Tracked files and those that are neither tracked nor ignored, submodules' and nested trees' too."""
    listed = [git(root, "ls-files", "-z", *which) for which in (["--cached"], ["--others", "--exclude-standard"])]
    if None in listed:
        return None
    found: list[Path] = []
    for name in dict.fromkeys(name for part in listed for name in (part or b"").split(b"\0") if name):
        path = Path(os.fsdecode(name))
        if (root / path).is_dir() and not (root / path).is_symlink():  # a tree of its own, in this one
            inner = _known_to_git(root / path) if (root / path / ".git").exists() else None
            found += [path / file for file in inner or ()]
        else:
            found.append(path)
    return found


def _python_files(root: Path, leave_out: Path) -> Iterator[Path]:
    """Python files in folders that can be packages, and links to such folders."""
    seen = 0
    for folder, folders, names in os.walk(root):
        seen += len(folders) + len(names)
        if seen > MOST_ENTRIES:
            raise LaunchError(Fault(
                what=f"the folder holds more than {MOST_ENTRIES:,} files, too many to find its code among them",
                where=str(root), remedy="Make the code a git tree (git init), with what is no code in .gitignore; or "
                                        "run from the folder as it is: --no-snapshot"))
        here = Path(folder).relative_to(root)
        packages = [name for name in sorted(folders) if name.isidentifier() and name != "__pycache__"
                    and not Path(folder, name, "pyvenv.cfg").exists() and Path(folder, name) != leave_out]
        folders[:] = packages  # os.walk goes there next, but not through links
        yield from (here / name for name in packages if Path(folder, name).is_symlink())
        yield from (here / name for name in sorted(names) if name.endswith(".py"))


def _is_file_or_link(path: Path) -> bool:
    """Whether there is something to copy: not a tracked file that was deleted, nor a pipe or a socket."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)
