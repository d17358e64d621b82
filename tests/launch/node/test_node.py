"""What submitit runs on a node, from its call to the result that it is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Status
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.local import Local
from tests.launch.node.stage import Stage
from tests.processes import until
from tests.runs import write_plan

NODE = """
import sys
from drumbeat.launch.node.node import Node
Node(sys.argv[1])()
"""


def test_the_end_of_submitits_controller_is_a_stop(stage: Callable[..., Stage]) -> None:
    """Locally it is the launcher's parent. The save is not lost."""
    here = stage()
    plan = JobPlan.require(here.run.plan)
    job = Local().submit(Request(plan=replace(plan, python=sys.executable), text=""))
    here.up()
    os.kill(int(job.id or 0), signal.SIGKILL)
    until(lambda: not job.running() and here.run.attempt(0).verdict.exists())
    assert here.verdict(0).message == "stopped at step 1: SIGTERM"
    until(lambda: not here.left())


def test_a_run_that_is_given_up_is_a_failure_to_submitit(stage: Callable[..., Stage]) -> None:
    here = stage(restarts=0)
    here.run.submitit.mkdir()
    (here.run.submitit / "9_0_result.pkl.save_tmp").touch()
    (here.run.path / "fake" / "fail0").write_text("boom")
    plan = JobPlan.require(here.run.plan)
    job = Local().submit(Request(plan=replace(plan, python=sys.executable), text=""))
    until(lambda: not job.running())
    assert "RunFailedError: rank 0 on here failed at step 3: ValueError: boom; " in job.handle.stderr()
    assert list(here.run.submitit.glob("*.save_tmp")) == []




def test_a_launcher_that_fails_reports_the_error(stage: Callable[..., Stage]) -> None:
    """Also where the run has had attempts before."""
    here = stage()
    here.run.claim_attempt()
    write_plan(here.run, python=str(here.run.plan))
    here.run.write_status("pending", attempt=0)
    done = subprocess.run([sys.executable, "-c", NODE, str(here.run.path)], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    status = Status.require(here.run.status)
    assert (status.state, status.attempt) == ("failed", 1)
    assert status.verdict.startswith("the node launcher failed: PermissionError: ")
