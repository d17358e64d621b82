"""The timeouts for a hanging rank expire in the order that explains the hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.patience import GRACE, SHORTEST, gloo_seconds, nccl_environment, nccl_seconds, patience
from tests.launch.tiny_plan import config


@pytest.mark.parametrize("seconds", [6.0, 60.0, 600.0, SHORTEST, 36_000.0])
def test_the_flight_recorder_then_the_stacks_then_the_end(seconds: float) -> None:
    variables = nccl_environment(seconds)
    recorded = nccl_seconds(seconds)
    ended_by_nccl = recorded + 4 * int(variables["TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC"]) / 1000
    assert 0 < recorded < seconds < seconds + GRACE < ended_by_nccl
    assert seconds + GRACE < gloo_seconds(seconds)
    assert int(variables["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"]) >= seconds


def test_patience_is_what_the_config_says_or_longer_than_a_pause_for_the_disk(tmp_path: Path) -> None:
    assert patience(config(tmp_path)) == SHORTEST
    assert patience(config(tmp_path, "watchdog.timeout_minutes=0.5")) == 30
    assert patience(config(tmp_path, "checkpoints.disk_wait_minutes=60")) > 60 * 60
