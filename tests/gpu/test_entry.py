"""`make test-gpu` on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from drumbeat.configs.load import ROOT


@pytest.mark.slow
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DRUMBEAT_TEST_DEVICE"}
    done = subprocess.run([sys.executable, "-m", "tests.gpu"], cwd=ROOT, capture_output=True, text=True,
                          env=environment | {"CUDA_VISIBLE_DEVICES": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no GPU to test on: torch ")
    assert done.stderr.count("\n") == 1
