"""What the states of jobs mean, and what to do."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.states import ENDED, QUEUED, explain_state

SLURM_HAS = """
BOOT_FAIL CANCELLED COMPLETED COMPLETING CONFIGURING DEADLINE EXPEDITING FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY
PENDING POWER_UP_NODE PREEMPTED RECONFIG_FAIL REQUEUED REQUEUED_CRON REQUEUE_FED REQUEUE_HOLD RESIZING RESV_DEL_HOLD
REVOKED RUNNING SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED SUSPENDED TIMEOUT UNINITIALISED UPDATE_DB
"""
"""The states in job_state_string of SLURM 20.11 to 26.05, and the flags in its job_state_codes.html."""


def test_every_state_of_slurm_is_known() -> None:
    assert set(SLURM_HAS.split()) == QUEUED.keys() | ENDED.keys()
    assert not QUEUED.keys() & ENDED.keys()


@pytest.mark.parametrize(("state", "meaning"), [
    ("SUSPENDED", "SLURM has suspended it: its processes are stopped, and its nodes may run other jobs"),
    ("CONFIGURING", "its nodes are booting, or their prolog is running"),
    ("FOGGY", "SLURM's state is FOGGY"),
])
def test_the_meaning_of_a_state(state: str, meaning: str) -> None:
    assert explain_state(state)[0] == meaning
