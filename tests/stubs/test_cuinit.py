"""Which processes call cuInit: a process forked from one that has called it cannot use CUDA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from drumbeat.trainers.tasks import Classification
from tests.stubs.driver import Call, StubDriver
from tests.tiny import drumbeat, write_config

pytestmark = pytest.mark.slow

ASK = """
import json, os, torch
print(json.dumps([os.getpid(), torch.cuda.device_count(), torch.cuda.is_available()]))
"""


class UsesCuda(Classification):
    """Classification that asks for a GPU when a rank builds it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        torch.cuda.is_available()


def test_the_stub_logs_the_calls_of_cuinit(stub_driver: StubDriver) -> None:
    """`device_count` asks NVML, and only `is_available` asks the driver."""
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True,
                          env=stub_driver.environment | {"RANK": "3"})
    pid, count, available = json.loads(done.stdout)
    assert (count, available) == (0, False)
    assert stub_driver.calls() == [Call(pid, "3", "python")]


def test_only_ranks_call_cuinit(stub_driver: StubDriver, tmp_path: Path) -> None:
    """Ranks are forked from torchrun's agent, which is forked from the fork server. If either had called cuInit, no
    rank could use a GPU."""
    drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "phases.head.epochs=0.2",
             "phases.finetune.epochs=0.2", "task._target_=tests.stubs.test_cuinit.UsesCuda",
             env=stub_driver.environment)
    calls = stub_driver.calls()
    assert [call for call in calls if call.rank == "-"] == []
    assert {call.rank for call in calls} == {"0", "1"}
