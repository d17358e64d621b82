"""`make test-gpu` on a machine without a GPU, so that its tests stay up to date."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from drumbeat.configs.load import ROOT
from tests.warm import run_python

pytestmark = pytest.mark.slow

SHORT = ("test_rank.py", "test_sharing.py", "test_run.py::test_a_run_out_of_memory_names_the_key_to_change")
"""The tests that do not train the flagship, which takes minutes on a CPU."""


def test_without_a_gpu_it_prints_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DRUMBEAT_TEST_DEVICE"}
    done = run_python([sys.executable, "-m", "tests.gpu"], cwd=ROOT, capture_output=True, text=True,
                      env=environment | {"CUDA_VISIBLE_DEVICES": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no GPU to test on: torch ")
    assert done.stderr.count("\n") == 1


def test_the_short_tests_run_on_a_cpu() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", *(f"tests/gpu/{name}" for name in SHORT)],
                          cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"DRUMBEAT_TEST_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
