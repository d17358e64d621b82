"""Fixtures and hooks for all tests: their order, their environment, and the report of how long they take."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.stubs.driver import StubDriver

FAST, KINDS = "fast", ("slurm", "slow")
"""What a test without these markers is called, and the markers of those that take long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests come first, so that whoever waits for all of them sees the cheap mistakes at once. Where several
    workers share them, they come last, so that no worker is left with a long one at the end. The order within a module
    stays, and so does its sharing of fixtures."""
    for item in items:
        kind = next((name for name in KINDS if item.get_closest_marker(name)), FAST)
        item.user_properties.append(("kind", kind))
    items.sort(key=lambda item: [*KINDS, FAST].index(dict(item.user_properties)["kind"]),
               reverse="PYTEST_XDIST_WORKER" not in os.environ)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much time the kinds of tests have taken, added up over the workers."""
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[dict(report.user_properties).get("kind", FAST)] += report.duration
    summary = ", ".join(f"{seconds[kind]:,.0f} s of {kind} ones" for kind in (FAST, *KINDS) if kind in seconds)
    terminalreporter.write_line(f"tests take {summary or 'no time'}")


ROOT = str(Path(__file__).resolve().parent.parent)


def pytest_configure() -> None:
    """Programs that the tests start find Drumbeat, and the tests' own targets as a user's."""
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([f"{ROOT}/src", ROOT]))
    _hear_ctrl_c()


def _hear_ctrl_c() -> None:
    """A shell that starts pytest in the background has Ctrl-C ignored, by all that the tests start as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, and so in all processes that tests start


@pytest.fixture
def warm_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process runs with `python -m drumbeat` is forked from one that has imported torch (tests/warm.py)."""
    from tests.warm import run_where_warm

    monkeypatch.setattr(subprocess, "run", run_where_warm)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The small experiment (tests/tiny.py) as two ranks train it, start to end."""
    from tests.tiny import drumbeat, latest, write_config

    folder = tmp_path_factory.mktemp("undisturbed")
    drumbeat(folder, str(write_config(folder)), "--procs", "2")
    return latest(folder)


@pytest.fixture
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> StubDriver:
    """A stub of NVIDIA's driver, and a log of the processes that call its cuInit."""
    return StubDriver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def device() -> str:
    """Where a test marked `gpu` has its tensors: "cuda", or what DRUMBEAT_TEST_DEVICE names. Skips without one."""
    from tests.gpu.device import DEVICE, no_device  # imports torch, which few tests need in this process

    if reason := no_device():
        pytest.skip(reason)
    return DEVICE


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in passwd, and without HOME: as in many containers."""
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
