"""The code of a run, copied into its folder when the run is submitted, so that later edits do not change the run, not
even after a requeue.

    RUN/code/<tree>/         one for each source folder: Drumbeat's own, the config's, those of its targets
    RUN/code/installed/      Drumbeat's package, if it is installed and not a clone
    RUN/code/<tree>.diff     the changes of the tracked files relative to the git commit
    RUN/code/snapshot.json   the source and commit of each tree, and where Python looks for modules

Uncommitted changes and new files are copied; files that git ignores and other packages in site-packages are not.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.importing import HOME, IS_CLONE, USER_PATH, environment
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree, newest_in
from drumbeat.configs.run.code_records import newest_code as newest_code
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.launch.plan.secrets import is_secret
from drumbeat.launch.plan.sources import code_files, git, git_root, is_trusted

INSTALLED = Path("installed", "drumbeat")
"""The name of the tree of Drumbeat's package if it is not a clone."""
MAX_BYTES = 100_000_000
MAX_FILES = 20_000
"""The limits of a copy. A larger tree contains data that git should ignore."""
SHOWN = 3
"""Names of files that a line shows."""


class Snapshot(CodeSnapshot):
    """The code of a run: its copied trees, and where Python looks for modules."""

    def import_variables(self, code: Path, home: Path | None = None) -> dict[str, str]:
        """The environment variables with which a process imports from the copy in `code`; Drumbeat itself from `home`,
        if it is given."""
        python_path, targets = ([str(code / folder) for folder in folders]
                                for folders in (self.python_path, self.targets))
        return environment(str(code / self.folder), python_path, targets, home=str(home or code / self.home))

    def relocate(self, plan: JobPlan, code: Path) -> JobPlan:
        """The plan with processes that import from the copy in `code`."""
        return dataclasses.replace(plan, environment=plan.environment | self.import_variables(code))

    def has_module(self, module: str, code: Path) -> bool:
        """Whether the copy in `code` contains a module of Drumbeat."""
        return (code / self.home / f"{module.replace('.', '/')}.py").exists()

    def with_original_paths(self, text: str, code: Path) -> str:
        """A text with paths in the copy replaced by the original paths."""
        for tree in self.trees:
            text = text.replace(str(code / tree.name), tree.folder)
        return text

    def text(self) -> str:
        """The trees in one line, each with its commit and number of changed files."""
        return "; ".join(map(_tree_text, self.trees))


def plan_snapshot(config: Config, file: Path | None, plan: JobPlan) -> Snapshot:
    """The trees that a run of this config needs: Drumbeat's, those of its targets, and the git tree of the config file.
    Nothing is copied yet."""
    search, python_path = ([Path(folder).resolve() for folder in plan.environment[name].split(os.pathsep) if folder]
                           for name in (USER_PATH, "PYTHONPATH"))
    theirs = sorted(set(_packages(dataclasses.asdict(config))) - {"drumbeat"})
    homes = [home for name in theirs if (home := _home(name, search))]
    own = git_root(file.resolve().parent) if file else None
    roots = [*([ROOT] if IS_CLONE else []), *homes]
    names: dict[Path, str] = {} if IS_CLONE else {ROOT: str(INSTALLED)}
    for root in dict.fromkeys([*(git_root(folder) or folder for folder in roots), *([own] if own else [])]):
        name = root.name or "root"
        names[root] = f"{name}-{len(names) + 1}" if name in (*names.values(), INSTALLED.parent.name) else name

    def copied(folder: Path) -> str:
        inside = [root for root in names if folder.is_relative_to(root)]
        if not inside:
            return str(folder)
        innermost = max(inside, key=lambda root: len(root.parts))
        return str(Path(names[innermost], folder.relative_to(innermost)))

    return Snapshot(trees=tuple(CodeTree(name=name, folder=str(root)) for root, name in names.items()),
                    folder=copied(search[0]), home=copied(HOME.resolve()) if IS_CLONE else str(INSTALLED.parent),
                    python_path=tuple(copied(path) for path in python_path if not IS_CLONE or path != HOME.resolve()),
                    targets=tuple(copied(path) for path in dict.fromkeys(homes) if path not in search))


def copy_code(snapshot: Snapshot, code: Path, exclude: Path) -> None:
    """Copies the trees into `code`, without the files in `exclude`, the folder of all runs. Raises `LaunchError` if
    they are too large, or if a file cannot be read."""
    found = {tree.name: code_files(Path(tree.folder), exclude.resolve()) for tree in snapshot.trees}
    sizes = {Path(tree.name, file): Path(tree.folder, file).lstat().st_size
             for tree in snapshot.trees for file in found[tree.name].files}
    if sum(sizes.values()) > MAX_BYTES or len(sizes) > MAX_FILES:
        raise LaunchError(_too_large(sizes, snapshot))
    code.mkdir(mode=0o700, parents=True)
    copies = []
    for tree in snapshot.trees:
        root, files = Path(tree.folder), found[tree.name].files
        _copy(root, files, code / tree.name)
        commit, changed = _state_in_git(root, files, code / f"{tree.name}.diff")
        copies.append(dataclasses.replace(
            tree, files=len(files), foreign=not is_trusted(root), commit=commit, changed_files=changed,
            bytes=sum(sizes[Path(tree.name, file)] for file in files),
            secret=tuple(map(str, found[tree.name].secret)), other=tuple(map(str, found[tree.name].other))))
    protect(code)
    code.chmod(min_mode([Path(tree.folder) for tree in snapshot.trees]))
    dataclasses.replace(snapshot, trees=tuple(copies)).write(code / "snapshot.json")


def min_mode(folders: Iterable[Path]) -> int:
    """The permissions that the folders and all above them have in common: the copy of a private folder is private."""
    mode = 0o777
    for folder in folders:
        for part in (folder, *folder.parents):
            mode &= stat.S_IMODE(part.stat().st_mode) | 0o700
    return mode


def copy_snapshot(before: Path, code: Path) -> None:
    """Copies the code of another run."""
    shutil.copytree(before, code, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    protect(code)


def protect(copy: Path) -> None:
    """Takes from all users the permission to write, which the originals of files and folders may have given them."""
    for path in (copy, *copy.rglob("*")):
        mode = path.lstat().st_mode
        if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~stat.S_IWOTH)


def next_code(run: Path) -> Path:
    """The folder of the next snapshot of a run."""
    before = newest_in(run)
    return run / (f"code-{int(before.name.partition('-')[2] or 1) + 1}" if before else "code")


def _tree_text(tree: CodeTree) -> str:
    state = f" at {tree.commit[:7]}" if tree.commit else " (another user's, read without git)" if tree.foreign else ""
    state += f" with {tree.changed_files} changed file{'s' * (tree.changed_files != 1)}" if tree.changed_files else ""
    kinds = [f"{kind} {_named(names)}" for kind, names in (("secret", tree.secret), ("not code", tree.other)) if names]
    left_out = f"; left out: {', '.join(kinds)}" if kinds else ""
    return f"{tree.name}{state}, {tree.files:,} file{'s' * (tree.files != 1)}{left_out}"


def _named(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return f"({', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''})"


def _packages(node: Any) -> Iterator[str]:
    """The top-level packages of a config's targets."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"].partition(".")[0]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _packages(item)


def _home(package: str, search: list[Path]) -> Path | None:
    """The folder in which Python finds a package; None if there is none, or if it is installed."""
    path = [*map(str, search), *sys.path]
    spec = PathFinder.find_spec(package, path) or (  # or an editable install's own finder
        importlib.util.find_spec(package) if package not in sys.modules and package.isidentifier() else None)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))).parent
    elif spec.has_location and spec.origin:
        folder = Path(spec.origin).parent
    else:
        return None
    return None if _installed(folder) else folder.resolve()


def _installed(folder: Path) -> bool:
    """Whether a folder contains installed packages or Python's own modules."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return (not {"site-packages", "dist-packages"}.isdisjoint(folder.parts) or any(folder.glob("*.dist-info"))
            or folder.resolve().is_relative_to(library))


def _copy(root: Path, files: Iterable[Path], to: Path) -> None:
    """Copies files with their times and modes. A link to a copied file becomes a link to the copy. Other links keep
    their target, unless it is a Python file, which is copied."""
    taken = {path for file in files for path in (file, *file.parents)}
    for file in files:
        source, target = root / file, to / file
        target.parent.mkdir(parents=True, exist_ok=True)
        leads = Path(os.path.realpath(source))
        inside = leads.relative_to(root) if leads.is_relative_to(root) else None
        try:
            if source.is_symlink() and inside in taken:
                target.symlink_to(os.path.relpath(to / str(inside), target.parent))
            elif source.is_symlink() and not (leads.suffix == ".py" and leads.is_file()):
                target.symlink_to(leads)
            else:
                shutil.copy2(source, target)
        except FileNotFoundError:
            continue  # deleted since it was listed
        except PermissionError as error:
            raise LaunchError(Fault(what=f"a file of the code cannot be copied: {error.strerror}", where=str(source),
                                    remedy="Make it readable, or add it to .gitignore.")) from None


def _state_in_git(root: Path, files: Iterable[Path], diff: Path) -> tuple[str, int]:
    """The commit of a tree, '' without one, and the number of files that differ from it. Writes the changes of tracked
    files to `diff`."""
    head = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if head is None:
        return "", 0
    names = (git(root, "diff", "--no-ext-diff", "--name-only", "-z", "HEAD") or b"").split(b"\0")
    changed = [os.fsdecode(name) for name in names if name]
    secret = [f":(exclude,literal){name}" for name in changed if is_secret(Path(name))]
    diff.write_bytes(git(root, "diff", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *secret) or b"")
    known = set((git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD") or b"").split(b"\0"))
    return head.decode().strip(), len(changed) - len(secret) + sum(os.fsencode(file) not in known for file in files)


def _too_large(sizes: dict[Path, int], snapshot: Snapshot) -> Fault:
    """The fault of a copy that is too large, with the largest files."""
    largest = sorted(sizes, key=lambda file: sizes[file], reverse=True)[:5]
    return Fault(
        what=f"the code is {sum(sizes.values()) / 1e6:,.0f} MB in {len(sizes):,} files; the limit of a run's copy is "
             f"{MAX_BYTES / 1e6:.0f} MB and {MAX_FILES:,} files",
        where="\n".join(tree.folder for tree in snapshot.trees),
        given="\n".join(f"{file}, {sizes[file] / 1e6:,.1f} MB" for file in largest),
        remedy="Add everything but code to .gitignore; or run the code in place, without a copy: --no-snapshot")
