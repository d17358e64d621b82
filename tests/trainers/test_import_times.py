"""How long imports took: measured in a process of its own, and told to ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.rank_records import SLOW_IMPORTS, Imports
from drumbeat.trainers import import_times
from drumbeat.trainers.import_times import VARIABLE, given, since_start, variables

WAITS = """
import json, os, sys, time
from drumbeat.trainers.import_times import since_start
before = since_start()
time.sleep(0.5)
waited = since_start()
until = time.process_time() + 0.3
while time.process_time() < until:
    pass
print(json.dumps([[one.seconds, one.waited] for one in (before, waited, since_start())]))
"""


def test_computing_and_waiting_for_a_core_are_no_waiting_for_files() -> None:
    """A process that sleeps stands for one that waits for a disk."""
    done = subprocess.run([sys.executable, "-c", WAITS], cwd=ROOT, capture_output=True, text=True, check=True)
    before, slept, computed = json.loads(done.stdout)
    assert 0 < before[1] < before[0]
    assert slept[1] - before[1] == pytest.approx(0.5, abs=0.1)
    assert computed[0] - slept[0] >= 0.3
    assert computed[1] - slept[1] < 0.1


def test_without_the_kernels_times_all_but_its_own_computing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    (tmp_path / "stat").write_text((import_times.PROCESS / "stat").read_text())
    monkeypatch.setattr(import_times, "PROCESS", tmp_path)
    found = since_start()
    assert 0 <= found.waited < found.seconds
    assert found.folder == sys.prefix


def test_ranks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert given() is None
    told = Imports(seconds=94.2, waited=88.4, folder="/shared/env")
    os.environ.update(variables(told))
    assert given() == told
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize(("waited", "slow"), [(SLOW_IMPORTS, False), (SLOW_IMPORTS + 1, True)])
def test_what_is_slow(waited: float, slow: bool) -> None:
    assert Imports(seconds=100.0, waited=waited, folder="/shared/env").are_slow == slow
