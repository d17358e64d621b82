"""Which files in a folder are its code.

In a git tree: the tracked files, and the new ones that are code by their suffix and not ignored. Without git: the files
that Python could import. Of Drumbeat's own package: all. Never a file that probably holds a password or a key.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.importing import PACKAGE
from drumbeat.launch.plan.secrets import is_secret

MAX_ENTRIES = 50_000
"""A folder without git that holds more entries than this is not searched for Python files."""
CODE = frozenset({
    ".py", ".pyi", ".pyx", ".pxd", ".so", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".sh", ".yaml",
    ".yml", ".toml", ".cfg", ".ini", ".json", ".jinja", ".j2", ".txt", ".md", ".rst", ".proto"})
"""Suffixes of code. Files that git does not track are copied only if they have one of these."""


class Sources(NamedTuple):
    """The code in a folder, as paths relative to it."""

    files: list[Path]
    secret: list[Path]
    """Left out because they probably hold a password or a key."""
    other: list[Path]
    """Left out because git does not track them and they are not code."""


def git(folder: Path, *arguments: str) -> bytes | None:
    """The output of a git command in a folder; None if git fails or is not installed.

    git executes programs that a tree's own configuration names (CVE-2022-24765), and refuses trees of other users for
    that reason. Only root's are accepted here as well.
    """
    if shutil.which("git") is None:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a git hook
    top = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), folder)
    accept = ["-c", f"safe.directory={top}"] if is_trusted(top) else []
    command = ["git", *accept, "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def is_trusted(tree: Path) -> bool:
    """Whether a tree belongs to this user or to root: its folder, and `.git` in it if there is one."""
    return all(path.lstat().st_uid in (os.geteuid(), 0) for path in (tree, tree / ".git") if path.exists())


def git_root(folder: Path) -> Path | None:
    """The root of the git tree that contains a folder; None if there is none, or if it ignores the folder. A home
    folder that is a git tree contains settings, and does not count."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top or git(folder, "check-ignore", "--quiet", ".") is not None:
        return None
    root = Path(os.fsdecode(top.removesuffix(b"\n")))
    return None if root == _home() else root


def _home() -> Path | None:
    """The user's home folder; None if there is none: HOME is not set, and the user is not in passwd."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def code_files(root: Path, exclude: Path) -> Sources:
    """The code files and links in `root`, without those in `exclude`.

    Raises `LaunchError` for a folder without git that is too large to search.
    """
    if root == PACKAGE.resolve():
        return Sources([file.relative_to(root) for file in sorted(root.rglob("*"))
                        if file.is_file() and file.suffix != ".pyc"], [], [])
    listed = _known_to_git(root) if (root / ".git").exists() else None
    tracked, new = listed or ([*_python_files(root, exclude)], [])
    found = Sources([], [], [])
    for files, all_kinds in ((tracked, True), (new, False)):
        for file in files:
            if not (root / file).is_relative_to(exclude) and _is_file_or_link(root / file):
                is_code = all_kinds or file.suffix in CODE or (root / file).is_symlink()
                (found.secret if is_secret(file) else found.files if is_code else found.other).append(file)
    return found


def _known_to_git(root: Path) -> tuple[list[Path], list[Path]] | None:
    """Tracked files, and those that are neither tracked nor ignored, with those of submodules and nested trees."""
    tracked: list[Path] = []
    new: list[Path] = []
    for which, found in ((["--cached"], tracked), (["--others", "--exclude-standard"], new)):
        output = git(root, "ls-files", "-z", *which)
        if output is None:
            return None
        for name in dict.fromkeys(filter(None, output.split(b"\0"))):
            path = Path(os.fsdecode(name))
            if not (root / path).is_dir() or (root / path).is_symlink():
                found.append(path)
            elif (root / path / ".git").exists() and (inner := _known_to_git(root / path)):
                tracked += [path / file for file in inner[0]]
                new += [path / file for file in inner[1]]
    return tracked, new


def _python_files(root: Path, exclude: Path) -> Iterator[Path]:
    """Python files in folders that can be packages, and links to such folders."""
    seen = 0
    for folder, folders, names in os.walk(root):
        seen += len(folders) + len(names)
        if seen > MAX_ENTRIES:
            raise LaunchError(Fault(
                what=f"the folder holds more than {MAX_ENTRIES:,} files, too many to find its code among them",
                where=str(root),
                remedy="git does not trust this folder, which belongs to another user. If you do: "
                       f"git config --global --add safe.directory {root}" if (root / ".git").exists() else
                       "Make the code a git tree (git init), with everything but code in .gitignore; or run without a "
                       "copy: --no-snapshot"))
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
