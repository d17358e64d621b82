"""The forks in which tests run `drumbeat` are like new Pythons, and can use a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import new_python
from tests.stubs.driver import StubDriver
from tests.warm import _servers, run_python

pytestmark = pytest.mark.slow

LOOK = """
import json, os, signal, subprocess, sys, threading
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "variables": dict(os.environ),
    "arguments": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"), "name": open("/proc/self/comm").read(),
    "signals": {int(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
    "ours": [name for name in sys.modules if name.partition(".")[0] in ("drumbeat", "tests", "look")],
    "module": __name__, "input": sys.stdin.read(), "threads": [thread.name for thread in threading.enumerate()],
    "files": sorted(os.listdir("/proc/self/fd"))}))
print("an error", file=sys.stderr)
if "again" in sys.argv:
    done = subprocess.run([sys.executable, "-m", "drumbeat.configs.importing", "look"], input="more", text=True,
                          cwd="/", env=os.environ | {"CHILD": "1"}, process_group=0)
    print(done.returncode, flush=True)
sys.exit(3)
"""


@pytest.mark.parametrize("arguments", [["-c", LOOK, "x"], ["look.py", "x y"], ["-m", "look", "again"]],
                         ids=["text", "script", "module"])
def test_a_fork_finds_what_a_new_python_finds(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    environment = os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}:{tmp_path}", "ONLY": "here"}
    seen = []
    for run in (subprocess.run, run_python):
        done = run([sys.executable, *arguments], input="some", capture_output=True, text=True, cwd=tmp_path,
                   env=environment)  # type: ignore[operator]
        assert done.returncode == 3, done.stderr
        seen.append(([json.loads(line) for line in done.stdout.splitlines()], done.stderr))
    assert seen[1] == seen[0]


def test_what_is_imported_ahead_asks_no_gpu(stub_driver: StubDriver) -> None:
    """Or no fork could use one."""
    program = f"import importlib\nfor name in {new_python.IMPORTED}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", program], check=True, env=stub_driver.environment)
    assert stub_driver.calls() == []


def test_a_server_that_was_killed_is_replaced() -> None:
    command = [sys.executable, "-m", "drumbeat", "--version"]
    assert run_python(command, capture_output=True, text=True).returncode == 0
    _servers[-1].kill()
    _servers[-1].wait()
    assert run_python(command, capture_output=True, text=True).stdout.startswith("drumbeat ")
