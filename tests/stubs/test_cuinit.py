"""Which processes call cuInit, on a machine without a GPU: processes forked from one that has cannot use CUDA."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.stubs.driver import Call, StubDriver

pytestmark = pytest.mark.slow

ASK = """
import json, os, torch
print(json.dumps([os.getpid(), torch.cuda.device_count(), torch.cuda.is_available()]))
"""


def test_the_stub_logs_who_calls_cuinit(stub_driver: StubDriver) -> None:
    """`device_count` asks NVML, and only `is_available` asks the driver."""
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True,
                          env=stub_driver.environment | {"RANK": "3"})
    pid, count, available = json.loads(done.stdout)
    assert (count, available) == (0, False)
    assert stub_driver.calls() == [Call(pid, "3", "python")]
