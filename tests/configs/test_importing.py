"""Where Python finds Drumbeat and the user's code, and in which order."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from drumbeat.configs import importing
from drumbeat.configs.layers import ROOT

PROBE = "import copy, random, tqdm; print(copy.__file__, random.__file__, tqdm.WHOSE)"


def test_the_variables_of_a_process() -> None:
    assert importing.environment("/lab", ["/lib", "/lab"], ["/editable"]) == {
        "PYTHONPATH": f"{ROOT}/src:/lib:/lab", "PYTHONSAFEPATH": "1", "DRUMBEAT_USER_PATH": "/lab:/lib:/editable"}
    assert importing.environment("", [], home="/copy")["PYTHONPATH"] == "/copy"


def test_installed_packages_need_no_place_in_pythonpath() -> None:
    """They would come before Python's own modules there."""
    assert importing.environment("/lab", ["/lib"], home=sysconfig.get_path("purelib"))["PYTHONPATH"] == "/lib"


def test_a_users_folders_come_behind_the_library_and_before_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = sysconfig.get_path("purelib")
    monkeypatch.setattr(sys, "path", ["/src", "/lib", "/python3", packages, "/editable"])
    importing.add_user_path(["/lab", "/lib"])
    assert sys.path == ["/src", "/python3", "/lab", "/lib", packages, "/editable"]
    importing.add_user_path(["/lab", "/lib"])
    assert sys.path == ["/src", "/python3", "/lab", "/lib", packages, "/editable"]


def test_a_users_own_modules_hide_none_of_pythons_and_any_installed_one(tmp_path: Path) -> None:
    (tmp_path / "tqdm").mkdir()
    (tmp_path / "tqdm" / "__init__.py").write_text("WHOSE = 'the lab'")
    (tmp_path / "probe.py").write_text(PROBE)
    for name in ("copy", "random", "types", "queue"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not the one of the library')")
    done = subprocess.run([sys.executable, "-m", "drumbeat.configs.importing", "probe"], cwd=tmp_path,
                          env=os.environ | importing.environment(str(tmp_path), []), capture_output=True, text=True,
                          check=False)
    library = sysconfig.get_path("stdlib")
    assert (done.stdout, done.stderr) == (f"{library}/copy.py {library}/random.py the lab\n", "")
