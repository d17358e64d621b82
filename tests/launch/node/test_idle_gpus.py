"""GPUs that compute nothing for long. The answers are those of a program in nvidia-smi's place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.rank_records import IdleGpus
from drumbeat.configs.run.records import Status, StopRequest, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.node.idle_gpus import CHECK_SECONDS, GpuWatch
from drumbeat.launch.plan.gpus import SMI_SECONDS
from drumbeat.launch.runs.status import status_text
from drumbeat.launch.runs.why import why
from tests.launch.node.stage import Stage
from tests.processes import until
from tests.runs import write_plan, write_state

FOUR = Topology(nodes=1, ranks_per_node=4, device="cuda", cpus_per_rank=1)


class Node:
    """A node whose nvidia-smi answers what the test says, and a clock that the test moves."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.delenv("SLURMD_NODENAME", raising=False)
        patch.setattr("socket.gethostname", lambda: "gpu07")
        self.run = RunDir(folder / "runs" / "tiny" / "20260101-000000-abcde")
        self.attempt: Attempt = self.run.claim_attempt()

    def program(self, body: str) -> None:
        file = self.folder / "nvidia-smi"
        file.write_text(f"#!/bin/sh\necho \"$@\" >>{self.folder}/asked\n{body}\n")
        file.chmod(0o755)

    def answer(self, *percent: object) -> None:
        self.program("\n".join(f"echo '{number}, {value}'" for number, value in enumerate(percent)))

    def watch(self, *, stop: float | None = None, topology: Topology = FOUR, **environment: str) -> GpuWatch:
        plan = write_plan(self.run, topology=topology, idle_gpu_minutes=stop, environment=environment)
        watch = GpuWatch.of(plan, self.attempt, 0)
        watch.asked = self.now
        return watch

    def minutes(self, watch: GpuWatch, count: int) -> dict[str, float]:
        """The idle GPUs after this many minutes."""
        for _ in range(count):
            self.now += CHECK_SECONDS
            watch.check()
            if watch.asking:
                watch.asking.wait()
                watch.check()
        record = IdleGpus.read(self.attempt.idle_gpus(0))
        return record.minutes if record else {}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_gpus_that_are_idle_for_ten_minutes_are_told(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.answer(0, 97, 4, 5)
    watch = node.watch()
    assert node.minutes(watch, 9) == {}
    assert not node.attempt.idle_gpus(0).exists()
    assert node.minutes(watch, 1) == {"0": 10.0, "2": 10.0}
    assert node.minutes(watch, 5) == {"0": 15.0, "2": 15.0}
    assert capsys.readouterr().out == "idle       GPUs 0, 2 on gpu07 idle for 10 minutes\n"
    write_state(node.run, "running")
    assert "idle GPUs       GPUs 0, 2 on gpu07 idle for 15 minutes\n" in status_text(View.read(node.run))
    assert "idle GPUs   GPUs 0, 2 on gpu07 idle for 15 minutes" in why(View.read(node.run))
    assert not node.attempt.stop.exists()


def test_a_gpu_that_computes_again_is_no_longer_told(node: Node) -> None:
    node.answer(0)
    watch = node.watch()
    assert node.minutes(watch, 12) == {"0": 12.0}
    node.answer(60)
    assert node.minutes(watch, 1) == {}
    write_state(node.run, "running")
    assert "idle" not in status_text(View.read(node.run))
    node.answer(0)
    assert node.minutes(watch, 9) == {}


@pytest.mark.parametrize("stop", [3.0, 20.0])
def test_the_run_is_stopped_if_asked(node: Node, stop: float) -> None:
    node.answer(99, 0)
    watch = node.watch(stop=stop)
    node.minutes(watch, int(stop) - 1)
    assert not node.attempt.stop.exists()
    assert node.minutes(watch, 1) == {"1": stop}
    assert StopRequest.require(node.attempt.stop).reason == "idle GPU"


def test_only_the_gpus_of_the_run_are_asked_for(node: Node) -> None:
    node.answer(0, 0)
    node.minutes(node.watch(CUDA_VISIBLE_DEVICES="3,5"), 1)
    node.minutes(node.watch(), 1)
    query = "--query-gpu=index,utilization.gpu --format=csv,noheader,nounits"
    assert (node.folder / "asked").read_text().splitlines() == [
        f"{query} --id=3,5", f"{query} --id=0,1,2,3"]


def test_no_more_gpus_than_ranks(node: Node) -> None:
    """nvidia-smi prints them in its own order."""
    one = Topology(nodes=1, ranks_per_node=1, device="cuda", cpus_per_rank=1)
    node.answer(0)
    node.minutes(node.watch(topology=one, CUDA_VISIBLE_DEVICES="5,3"), 1)
    assert (node.folder / "asked").read_text().split()[-1] == "--id=5"


def test_one_check_stops_no_run(node: Node) -> None:
    node.answer(0)
    watch = node.watch(stop=1.0)
    assert node.minutes(watch, 1) == {}
    assert not node.attempt.stop.exists()
    assert node.minutes(watch, 1) == {"0": 2.0}
    assert StopRequest.require(node.attempt.stop).reason == "idle GPU"


@pytest.mark.parametrize(("device", "visible"), [("cpu", None), ("cuda", "MIG-1"), ("cuda", "")])
def test_nothing_is_asked_without_whole_gpus(node: Node, device: str, visible: str | None) -> None:
    topology = Topology(nodes=1, ranks_per_node=1, device="cpu" if device == "cpu" else "cuda", cpus_per_rank=1)
    node.answer(0)
    node.minutes(node.watch(topology=topology, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})), 12)
    assert not (node.folder / "asked").exists()


@pytest.mark.parametrize("body", [
    "echo '0, [N/A]'", "echo '0, [Unknown Error]'; exit 1", "echo 'No devices were found'; exit 6", "exit 9",
    "kill -KILL $$", "echo 'Unable to determine the device handle: GPU is lost, reboot'; exit 15"])
def test_answers_without_a_utilization_are_not_counted(node: Node, body: str) -> None:
    node.program(body)
    assert node.minutes(node.watch(), 12) == {}


def test_a_machine_without_nvidia_smi(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert node.minutes(node.watch(), 12) == {}


def test_a_program_that_hangs_is_killed_and_asked_again(node: Node) -> None:
    node.program("exec sleep 1000")
    watch = node.watch()
    node.now += CHECK_SECONDS
    watch.check()
    hung = watch.asking
    assert hung
    node.now += SMI_SECONDS + 1
    watch.check()
    assert hung.wait() != 0
    watch.check()
    node.answer(0)
    assert node.minutes(watch, 10) == {"0": 10.0}


def test_a_launcher_stops_its_run(stage: Callable[..., Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                  ) -> None:
    """It asks five times a second, and its plan says that the run is on GPUs."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, 0'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    here = stage(device="cuda", idle_gpu_minutes=5 * 0.2 / 60)
    here.launch()
    here.up()
    until(here.run.attempt(0).stop.exists, seconds=30)
    (output,) = here.end()
    assert output.splitlines()[-1] == "leave"
    assert output.startswith("idle       GPU 0 on ")
    verdict = Verdict.require(here.run.attempt(0).verdict)
    assert verdict.message.endswith(": a GPU was idle for watchdog.idle_gpu_minutes")
    assert Status.require(here.run.status).state == "stopped"
