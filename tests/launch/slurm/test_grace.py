"""A run that takes long to save is signalled earlier, and warned if preemption would not wait for the save."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm.grace import grace_seconds, grace_warning, save_seconds
from tests.launch.fake_slurm import programs
from tests.launch.tiny_plan import plan


def stopped(run: RunDir, seconds: float | None) -> None:
    """An attempt that took this long to save, or did not save (None)."""
    attempt = run.claim_attempt()
    attempt.request_stop("time limit")
    if seconds is not None:
        attempt.saved.write_text("{}")
        os.utime(attempt.stop, (1000, 1000))
        os.utime(attempt.saved, (1000 + seconds, 1000 + seconds))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def test_the_grace_time_follows_the_longest_save(run: RunDir) -> None:
    assert (save_seconds(run), grace_seconds(run, 120, 3600)) == (0.0, 120)
    for seconds in (40.0, None, 200.0, 100.0):
        stopped(run, seconds)
    assert save_seconds(run) == 200.0
    assert grace_seconds(run, 120, 3600) == 300
    assert grace_seconds(run, 600, 3600) == 600, "at least what the site says"
    assert grace_seconds(run, 60, 480) == 240, "no more than half of the job"
    assert grace_seconds(run, 120, 90) == 45, "whatever the site says"
    assert grace_seconds(run, 120, math.inf) == 300


def test_the_next_job_is_signalled_earlier(run: RunDir) -> None:
    stopped(run, 400.0)
    planned = JobPlan(**vars(plan(run.path.parent, "launch.gpus=1", backend="slurm")) | {"run_dir": str(run.path)})
    assert "#SBATCH --signal=USR2@600\n" in Slurm().request(planned).text


@pytest.mark.parametrize(("partition", "config", "warning"), [
    ("GraceTime=60 PreemptMode=REQUEUE", "", ""),
    ("GraceTime=0 PreemptMode=OFF", "", ""),
    ("", "", ""),
    ("GraceTime=10 PreemptMode=REQUEUE", "", "the GraceTime of partition main is 10 s, and this run took 45 s to save"),
    ("GraceTime=0 PreemptMode=CANCEL", "KillWait                = 30 sec", "KillWait is 30 s, and this run took 45 s"),
])
def test_a_grace_time_shorter_than_a_save(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition: str,
                                          config: str, warning: str) -> None:
    shown = f"PartitionName=main {partition}" if partition else ""
    monkeypatch.setenv("PATH", programs(tmp_path, scontrol=f'case "$*" in "show config") echo "{config}";; '
                                                           f'"--oneliner show partition main") echo "{shown}";; esac'))
    assert grace_warning(run, "main") == "", "nothing is known of its saves"
    stopped(run, 45.0)
    found = grace_warning(run, "main")
    assert found.startswith(warning) and bool(found) == bool(warning)
