"""Which files in a folder are its code."""

from __future__ import annotations

import os
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


def test_what_git_tracks_is_taken_and_of_the_rest_only_code_that_is_not_ignored(tree: Path) -> None:
    for name in ("data.csv", "new.py", "new.csv", "ignored.bin", ".env"):
        (tree / name).write_text("")
    git(tree, "add", "data.csv")
    (tree / "gone.py").unlink()
    found = sources.code_files(tree, Path("/nowhere"))
    assert set(map(str, found.files)) == {".gitignore", "nets.py", "data.csv", "new.py"}
    assert (found.secret, found.other) == ([Path(".env")], [Path("new.csv")])


def test_no_git_and_a_failing_git_have_no_output(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.git(tree, "rev-parse", "--show-toplevel") == f"{tree}\n".encode()
    assert sources.git(tree, "rev-parse", "nonsense") is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert sources.git(tree, "rev-parse", "--show-toplevel") is None
    assert sources.git_root(tree) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_the_tree_of_another_user_is_not_trusted(tree: Path) -> None:
    assert sources.is_trusted(tree)
    os.chown(tree / ".git", 12345, 12345)
    assert not sources.is_trusted(tree)


@pytest.mark.usefixtures("no_home")
def test_a_tree_of_a_user_without_a_home(tree: Path) -> None:
    assert sources.git_root(tree) == tree
