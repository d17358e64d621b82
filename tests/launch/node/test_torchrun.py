"""The fork server of a node and its agents."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.node.torchrun import Agents
from tests.launch import fake_torchrun
from tests.launch.node.stage import Stage
from tests.runs import write_plan


def test_only_the_launcher_receives_signals(stage: Callable[..., Stage]) -> None:
    """Not even who installs a handler, as torch's loader workers do; SLURM may send them to all."""
    here = stage()
    here.launch()
    for pid in here.up().values():
        for number in fake_torchrun.SIGNALS:
            os.kill(pid, number)
    here.launchers[0].send_signal(signal.SIGUSR2)
    assert here.end() == ["leave"]
    assert here.verdict(0).message == "stopped at step 1: the job's time limit is near"
    assert fake_torchrun.received_signals(here.run.path) == {}


def test_a_server_that_cannot_start_counts_as_an_agent_that_failed(tmp_path: Path) -> None:
    """With the server's exit code, or 1 if it has none; another one has to be started for the next attempt."""
    run = RunDir(tmp_path / "run")
    for program, code in (("false", 1), ("true", 1)):
        attempt = run.claim_attempt()
        plan = write_plan(run, python=program, folder=str(tmp_path))
        agents = Agents(plan, attempt, node=0)
        assert agents.poll() == 0, "no agent has been started"
        agents.start(["--nnodes=1"], {}, attempt)
        assert agents.poll(10) == code
        assert not agents.alive
        agents.close()


def test_an_agent_is_started_with_its_arguments_and_environment_and_its_code_is_reported(tmp_path: Path) -> None:
    """By the server, which gets a line of JSON for each agent and answers with a line for each that has ended."""
    server = tmp_path / "server"
    server.write_text('#!/bin/sh\necho "$@" > server.arguments\nread order; echo "$order" > order; echo 3\n'
                      "read order; echo -9; read end\n")
    server.chmod(0o755)
    run = RunDir(tmp_path / "run")
    plan, attempt = write_plan(run, python=str(server), folder=str(tmp_path)), run.claim_attempt()
    agents = Agents(plan, attempt, node=0)
    agents.start(["--nnodes=1", "x y"], {"RANK": "0"}, attempt)
    assert agents.poll(10) == 3
    assert json.loads((tmp_path / "order").read_text()) == {
        "arguments": ["--nnodes=1", "x y"], "environment": {"RANK": "0"}, "log": str(attempt.node_log(0))}
    assert (tmp_path / "server.arguments").read_text().split() == [
        "-m", "drumbeat.configs.importing", "drumbeat.trainers.forkserver", str(run.path)]
    assert agents.alive
    agents.start([], {}, attempt)
    assert agents.poll(10) == -9
    agents.close()
    assert not agents.alive
