"""Which files of a folder are code: with git, those it tracks or would add; without git, those Python could import; in
Drumbeat's own package all files, including style sheets and configs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.importing import PACKAGE

MAX_ENTRIES = 50_000
"""A folder without git that contains more files than this is not searched for Python files."""


def git(folder: Path, *arguments: str) -> bytes | None:
    """The output of git in a folder; None if it fails or is not installed.

    The owner of the tree does not matter (safe.directory), because the run is going to execute its code.
    """
    if shutil.which("git") is None:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a git hook
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def git_root(folder: Path) -> Path | None:
    """The root of the git tree that contains a folder; None if there is none, or if it ignores the folder."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top or git(folder, "check-ignore", "--quiet", ".") is not None:
        return None
    return Path(os.fsdecode(top.removesuffix(b"\n")))


def code_files(root: Path, exclude: Path) -> list[Path]:
    """The code files and links in `root`, relative to it, without those in `exclude`.

    Raises `LaunchError` for a folder without git that is too large to search.
    """
    if root == PACKAGE.resolve():
        return [file.relative_to(root) for file in sorted(root.rglob("*")) if file.is_file() and file.suffix != ".pyc"]
    known = _known_to_git(root) if (root / ".git").exists() else None
    files = _python_files(root, exclude) if known is None else known
    return [file for file in files if not (root / file).is_relative_to(exclude) and _is_file_or_link(root / file)]


def _known_to_git(root: Path) -> list[Path] | None:
    """Tracked files, and files that are neither tracked nor ignored, including submodules and nested trees."""
    listed = [git(root, "ls-files", "-z", *which) for which in (["--cached"], ["--others", "--exclude-standard"])]
    if None in listed:
        return None
    found: list[Path] = []
    for name in dict.fromkeys(name for part in listed for name in (part or b"").split(b"\0") if name):
        path = Path(os.fsdecode(name))
        if (root / path).is_dir() and not (root / path).is_symlink():  # a nested tree
            inner = _known_to_git(root / path) if (root / path / ".git").exists() else None
            found += [path / file for file in inner or ()]
        else:
            found.append(path)
    return found


def _python_files(root: Path, exclude: Path) -> Iterator[Path]:
    """Python files in folders that can be packages, and links to such folders."""
    seen = 0
    for folder, folders, names in os.walk(root):
        seen += len(folders) + len(names)
        if seen > MAX_ENTRIES:
            raise LaunchError(Fault(
                what=f"the folder holds more than {MAX_ENTRIES:,} files, too many to find its code among them",
                where=str(root), remedy="Make the code a git tree (git init), with everything but code in .gitignore; "
                                        "or run without a copy: --no-snapshot"))
        here = Path(folder).relative_to(root)
        packages = [name for name in sorted(folders) if name.isidentifier() and name != "__pycache__"
                    and not Path(folder, name, "pyvenv.cfg").exists() and Path(folder, name) != exclude]
        folders[:] = packages  # os.walk descends into these, but not through links
        yield from (here / name for name in packages if Path(folder, name).is_symlink())
        yield from (here / name for name in sorted(names) if name.endswith(".py"))


def _is_file_or_link(path: Path) -> bool:
    """Whether a path can be copied: not a deleted tracked file, a pipe or a socket."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)
