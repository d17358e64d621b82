"""Fast tests first: whoever waits for the whole suite sees the cheap mistakes at once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.stubs.driver import StubDriver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts by cost and nothing else: the order within a module, and so the sharing of fixtures, stays."""
    items.sort(key=lambda item: 2 if item.get_closest_marker("slurm") else 1 if item.get_closest_marker("slow") else 0)


ROOT = str(Path(__file__).resolve().parent.parent)


def pytest_configure() -> None:
    """Programs that the tests start find Drumbeat, and the tests' own targets as a user's."""
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([f"{ROOT}/src", ROOT]))
    _hear_ctrl_c()


def _hear_ctrl_c() -> None:
    """A shell that starts pytest in the background has Ctrl-C ignored, by all that the tests start as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def warm_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process runs with `python -m drumbeat` is forked from one that has imported torch (tests/warm.py)."""
    from tests.warm import run_where_warm

    monkeypatch.setattr(subprocess, "run", run_where_warm)


@pytest.fixture
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> StubDriver:
    """A stand-in for NVIDIA's driver, and a log of the processes that call its cuInit."""
    return StubDriver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def device() -> str:
    """Where a test marked `gpu` has its tensors: "cuda", or what DRUMBEAT_TEST_DEVICE names. Skips without one."""
    from tests.gpu.device import DEVICE, lacking  # imports torch, which few tests need in this process

    if reason := lacking():
        pytest.skip(reason)
    return DEVICE
