"""A sweep as a job array on a real cluster: with one task killed and the controller restarted, all trials finish, and
compute what a single run computes, bit for bit."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Verdict
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import RANKS, processes_of
from drumbeat.launch.slurm.client import array_tasks, run_slurm
from drumbeat.launch.sweeps.states import states_of
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.kinds import SOME, on
from tests.slurm.runs import START, output_of
from tests.tiny import write_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def states(folder: SweepDir) -> list[str]:
    return [one.state for one in states_of(folder, folder.read())]


@on("cgroup", among=SOME)
def test_a_task_killed_and_queued_again_and_the_controller_restarted(cluster: Cluster, tmp_path: Path,
                                                                   undisturbed: RunDir) -> None:
    """Trial 0 waits at a step, where a rank is killed while there is no controller, and at another one, until SLURM
    queues the task again: then it saves. Trial 1 starts after it."""
    write_config(tmp_path)
    output_of(tmp_path, "sweep", "tiny.yaml", "--slurm", "--procs", "2", "--max-parallel", "1", "--name", "s",
              "--no-preflight", "checkpoints.every_steps=2,4", "task._target_=tests.tiny.Fuse",
              f"task.folder={tmp_path}", "task.at=[20,25]", "task.how=wait", "task.rank=1")
    folder = SweepDir(tmp_path / "runs" / "s")
    (array,), task = folder.read().jobs, folder.run(folder.read(), 0)
    until((tmp_path / "blown-0").exists, seconds=START)
    cluster.kill_daemon("slurmctld")
    for process in processes_of(View.read(task), RANKS):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    until((tmp_path / "blown-1").exists, seconds=START)
    cluster.start_daemon("slurmctld")
    until(lambda: run_slurm("squeue", "--noheader").code == 0)
    assert array_tasks(array) == {0, 1}
    cluster.run("scontrol", "requeue", f"{array}_0")
    until(task.attempt(1).stop.exists)
    (tmp_path / "go").touch()
    cluster.start_again(f"{array}_0")
    until(lambda: states(folder) == ["finished"] * 2, seconds=2 * START)
    ended = [folder.run(folder.read(), number) for number in (0, 1)]
    alone = Result.require(undisturbed.result)
    assert [Result.require(run.result) for run in ended] == [alone, alone]
    assert [read(run.config).checkpoints.every_steps for run in ended] == [2, 4]
    assert [job.id for run in ended if (job := View.read(run).job)] == [f"{array}_0", f"{array}_1"]
    assert Verdict.require(task.attempt(0).verdict).outcome == "failed"
    assert len(list(task.attempts.iterdir())) >= 3
    assert "finished: 2 finished" in output_of(tmp_path, "status", "s")
