"""Which files in a folder are its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.launch.plan import sources
from tests.launch.plan.git import git


def code(folder: Path, exclude: Path = Path("/nowhere")) -> set[str]:
    """The files in a folder that are its code."""
    return set(map(str, sources.code_files(folder, exclude).files))


def test_submodules_and_trees_within_trees(tree: Path, tmp_path: Path) -> None:
    for name in ("sub", "inner"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "--quiet")
        (tmp_path / name / f"{name}.py").write_text("")
        git(tmp_path / name, "add", "--all")
        git(tmp_path / name, "commit", "--quiet", "--message", "one")
    git(tree, "submodule", "--quiet", "add", str(tmp_path / "sub"))
    (tree / "sub" / "edited.py").write_text("")
    (tmp_path / "inner").rename(tree / "inner")
    (tree / "empty").mkdir()
    assert {"sub/sub.py", "sub/edited.py", "inner/inner.py"} <= code(tree)


def test_the_variables_of_a_git_hook_do_not_matter(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere/.git")
    assert ".gitignore" in code(tree)


def test_a_home_folder_under_git_is_not_a_tree_of_code(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "exp").mkdir()
    assert sources.git_root(tree / "exp") == tree
    monkeypatch.setenv("HOME", str(tree))
    assert sources.git_root(tree / "exp") is None


def test_without_git_the_python_files_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lab"
    for name in ("nets.py", "parts/deep/part.py", "notes.txt", "no-package/x.py", "env/pyvenv.cfg", "env/x.py",
                 "runs/old/code.py", "__pycache__/nets.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert code(folder, exclude=folder / "runs") == {"nets.py", "parts/deep/part.py"}
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    with pytest.raises(LaunchError, match="too many to find its code among them"):
        code(folder)
