"""What is installed and what is distributed: exactly the files whose digests the repository states, and a wheel that
anybody can build again byte by byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from drumbeat.configs.layers import ROOT
from tests.test_names import copy_project

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The versions of Python that the locked versions are for."""

LOCK = (ROOT / "requirements-dev.txt").read_text()


def locked() -> list[tuple[Requirement, list[str]]]:
    """The entries of the lock: a requirement, and the digests of its files."""
    entries = re.split(r"\n(?=\S)", LOCK.rstrip("\n").replace("\\\n", ""))
    return [(Requirement(first), digests) for first, *digests in (re.split(r"\s+(?=--hash=)", one) for one in entries)]


def test_each_locked_package_has_one_version_and_digests_and_no_other_source() -> None:
    for requirement, digests in locked():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert digests, requirement
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", digest) for digest in digests), requirement
    assert not re.search("://|^-|^[./]", LOCK, re.MULTILINE), "an index, or a file of some machine"


def test_the_lock_has_what_pyproject_requires() -> None:
    """For each version of Python. Else: make lock"""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    required = [Requirement(text) for text in (*project["dependencies"], *(
        one for extra in ("dev", "dicom", "docs") for one in optional[extra]))]
    for python in PYTHONS:
        environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux",
                       "platform_machine": "x86_64", "platform_python_implementation": "CPython"}
        versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one, _ in locked()
                    if one.marker is None or one.marker.evaluate(environment)}
        missing = [str(one) for one in required if one.name != "drumbeat"
                   and not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"))]
        assert missing == [], python


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def make(folder: Path, *words: str, umask: int) -> None:
    """Runs make in a clone, as if `make install` had made this environment."""
    done = subprocess.run(["make", "--silent", "--old-file=install", f"BIN={Path(sys.executable).parent}", *words],
                          cwd=folder, umask=umask, capture_output=True, text=True, check=False,
                          env=os.environ | {"TZ": f"UTC{umask}", "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr


def built(folder: Path) -> Path:
    (wheel,) = (folder / "dist").iterdir()
    return wheel


def test_a_wheel_has_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    """In another folder, at another time, with other file modes, and beside files that git does not track."""
    (tmp_path / "first").mkdir()
    first, second = copy_project(tmp_path / "first"), tmp_path / "elsewhere" / "second"
    git(first, "init", "--quiet")
    git(first, "add", "--all")
    git(first, "commit", "--quiet", "--message=All", "--date=2026-01-31T12:00:00Z")
    clone(first, second)
    (second / "configs" / "private.yaml").write_text("password: hunter2")
    make(first, "wheel", umask=0o002)
    make(second, "wheel", umask=0o077)
    assert built(first).read_bytes() == built(second).read_bytes()
    with zipfile.ZipFile(built(first)) as opened:
        assert {oct(entry.external_attr >> 16 & 0o777) for entry in opened.infolist()} <= {"0o644", "0o664"}
        assert not [name for name in opened.namelist() if name.startswith(("tests/", "runs/", "benchmarks/"))]


def clone(repository: Path, folder: Path) -> None:
    """A clone whose files only this user may read, and were modified at another time."""
    subprocess.run(["git", "clone", "--quiet", repository, folder], umask=0o077, check=True)
    for path in folder.rglob("*"):
        if not path.is_symlink() and ".git" not in path.parts:
            os.utime(path, (1_700_000_000, 1_700_000_000))
