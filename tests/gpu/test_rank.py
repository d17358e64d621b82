"""The state of a rank on a GPU: a driver that works after the fork, exact fp32, a loop that never waits."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def test_no_process_used_cuda_before_the_rank_was_forked(reported: dict[str, Any], device: str) -> None:
    assert reported["device"] == {"cuda": "cuda:0", "cpu": "cpu"}[device]
    assert reported["in_bad_fork"] is False


def test_fp32_is_not_computed_in_tf32(reported: dict[str, Any]) -> None:
    assert all(error < 2e-4 for error in reported["fp32_errors"].values()), reported


def test_a_step_never_waits_for_the_gpu(reported: dict[str, Any], device: str) -> None:
    assert reported["on_purpose"] == (1 if device == "cuda" else 0)
    assert reported["synchronisations"] == []
