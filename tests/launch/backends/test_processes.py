"""The processes of a run are found by their command lines, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import LAUNCHERS, processes_of
from tests.processes import until
from tests.runs import write_plan


def test_processes_of_a_run_are_found_by_their_command_lines(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_plan(run)
    view = View.read(run)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (subprocess.Popen([*sleep, "submitit.core._submit", str(run.submitit)]) as launcher,
          subprocess.Popen([*sleep, "drumbeat.trainers.worker", str(run.path), "0"]) as rank,
          subprocess.Popen([*sleep, "tensorboard", "--logdir", str(run.path)]) as unrelated,
          subprocess.Popen([*sleep, "drumbeat.trainers.worker", f"{run.path}2", "0"]) as other):
        until(lambda: len(processes_of(view)) >= 2)  # a moment after exec, /proc has no command line yet
        assert sorted(processes_of(view)) == sorted([launcher.pid, rank.pid])
        assert processes_of(view, LAUNCHERS) == [launcher.pid]
        assert running_evidence(view) in (f"process {launcher.pid}", f"process {rank.pid}")
        for process in (launcher, rank, unrelated, other):
            process.kill()
    assert running_evidence(view) == ""
