"""Two runs on one machine do not take the same GPUs. The GPUs are fake, the processes and locks are real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Allocation
from drumbeat.configs.run.records import Status
from drumbeat.configs.site import Site
from drumbeat.launch.backends.allocation import node_resources
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.commands.main import main
from drumbeat.launch.plan import gpu_locks, gpus
from drumbeat.launch.plan.gpu_locks import check_free, hold_gpus
from drumbeat.launch.plan.job import JobPlan, Machine, Topology, plan_job
from tests.launch import fake_torchrun
from tests.launch.tiny_plan import config, write_config
from tests.processes import until

NODE = """
import sys
from drumbeat.launch.plan import gpu_locks
from drumbeat.launch.node.node import Node
gpu_locks.PATIENCE = 0
Node(sys.argv[1].removesuffix("/submitit"))()
"""


@pytest.fixture
def pool() -> list[str]:
    """Names of two GPUs that no other process on this machine uses."""
    return [f"GPU-{letter}{os.urandom(6).hex()}" for letter in "ab"]


def planned(folder: Path, pool: list[str], *, ranks: int = 1) -> JobPlan:
    """The plan of a run with a fake torchrun and fake ranks."""
    topology = Topology(nodes=1, ranks_per_node=ranks, device="cuda", cpus_per_rank=1)
    return JobPlan(run_dir=str(folder), name="fake", backend="local", topology=topology, site=Site(),
                   environment={"CUDA_VISIBLE_DEVICES": ",".join(pool)}, folder=str(folder.parent), restarts=0,
                   python=fake_torchrun.install(folder.parent))


Start = Callable[..., tuple[RunDir, "subprocess.Popen[str]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the node launcher of a run in a process of its own, on this list of GPUs."""
    launchers: list[subprocess.Popen[str]] = []

    def make(name: str, pool: list[str], ranks: int = 1) -> tuple[RunDir, subprocess.Popen[str]]:
        run = RunDir(tmp_path / "runs" / name)
        (run.path / "fake").mkdir(parents=True)
        planned(run.path, pool, ranks=ranks).write(run.plan)
        launchers.append(subprocess.Popen([sys.executable, "-c", NODE, str(run.submitit)], cwd=ROOT, text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return run, launchers[-1]

    yield make
    for launcher in launchers:
        launcher.kill()
        launcher.communicate()


def gpus_of(run: RunDir) -> str:
    """The CUDA_VISIBLE_DEVICES of rank 0 of a run, once it has started."""
    until(lambda: "rank0" in fake_torchrun.pids(run.path, 0))
    pairs = Path(f"/proc/{fake_torchrun.pids(run.path, 0)['rank0']}/environ").read_text().split("\0")
    return dict(pair.partition("=")[::2] for pair in pairs)["CUDA_VISIBLE_DEVICES"]


def test_two_launchers_take_different_gpus_and_a_killed_one_frees_its_own(start: Start, pool: list[str]) -> None:
    first, launcher = start("first", pool)
    assert gpus_of(first) == pool[0]
    second, _ = start("second", pool)
    assert gpus_of(second) == pool[1]
    launcher.kill()
    launcher.wait()
    third, _ = start("third", pool)
    assert gpus_of(third) == pool[0]


def test_a_launcher_without_enough_gpus_fails_the_run_and_names_the_holders(start: Start,
                                                                                  pool: list[str]) -> None:
    first, launcher = start("first", pool)
    gpus_of(first)
    second, late = start("second", pool, ranks=2)
    assert "RunFailedError: not enough free GPUs" in late.communicate(timeout=60)[1]
    status = Status.require(second.status)
    assert status.state == "failed"
    assert status.verdict == (
        "not enough free GPUs; 2 ranks with one GPU each, 1 of 2 free; "
        f"GPU {pool[0]} is used by run runs/first (process {launcher.pid})")
    assert second.newest_attempt() is None


def test_a_run_for_which_too_few_gpus_are_free_is_not_started(
        tmp_path: Path, start: Start, pool: list[str], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    first, launcher = start("first", pool)
    gpus_of(first)
    monkeypatch.chdir(write_config(tmp_path).parent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(pool))
    monkeypatch.setattr(gpus, "present", lambda: (gpus.Gpu(), gpus.Gpu()))
    monkeypatch.setattr("drumbeat.launch.plan.job.present", gpus.present)
    before = sorted(tmp_path.glob("runs/*"))
    assert main(["run", "small.yaml", "--dry-run"]) == 0  # a dry run takes none
    assert f"CUDA_VISIBLE_DEVICES={pool[0]},{pool[1]}\n" in capsys.readouterr().out
    assert main(["run", "small.yaml"]) == 2
    assert " ".join(capsys.readouterr().err.split()) == (
        f"error: not enough free GPUs where launch.gpus given 2 ranks with one GPU each, 1 of 2 free GPU {pool[0]} is "
        f"used by run runs/first (process {launcher.pid}) "
        "fix Use --gpus 1, wait for a run to end, or stop one: drumbeat stop RUN")
    assert sorted(tmp_path.glob("runs/*")) == before


def test_two_runs_that_each_hold_one_of_two_gpus_do_not_deadlock(tmp_path: Path, pool: list[str],
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_locks, "TIMEOUT", 60.0)
    taken: list[str] = []

    def take() -> None:
        with hold_gpus(planned(tmp_path / "run", pool, ranks=2)) as plan:
            taken.append(plan.environment["CUDA_VISIBLE_DEVICES"])

    other = threading.Thread(target=take)
    with hold_gpus(planned(tmp_path / "run", pool[1:])):
        other.start()
        with hold_gpus(planned(tmp_path / "run", pool[:1])):  # the other run takes and releases it repeatedly
            assert taken == []
    other.join(60)
    assert taken == [",".join(pool)]


def test_slurm_assigns_the_gpus_of_its_jobs(tmp_path: Path, pool: list[str]) -> None:
    """So their plans name no GPUs, and lock none."""
    machine = Machine(cpus=8, gpus=tuple(pool))
    lent = node_resources(machine, Allocation(job_id="7", nodes=1, cpus_per_node=8, gpus_per_node=2))
    for backend, resources in (("here", lent), ("slurm", backend_of("slurm").resources(machine))):
        inside = plan_job(config(tmp_path, "launch.gpus=2"), run_dir=tmp_path / "run", backend=backend, site=Site(),
                          machine=resources, folder=tmp_path)  # type: ignore[arg-type]
        assert "CUDA_VISIBLE_DEVICES" not in inside.environment
        with hold_gpus(planned(tmp_path / "run", pool, ranks=2)), hold_gpus(inside) as plan:
            check_free(inside)
            assert plan == inside


def test_a_debug_run_holds_its_gpu_too(tmp_path: Path, pool: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_locks, "TIMEOUT", 0.0)
    with hold_gpus(planned(tmp_path / "run", pool[:1])):
        with pytest.raises(LaunchError, match=f"used by process {os.getpid()}") as error, \
                hold_gpus(planned(tmp_path / "run", pool[:1])):
            pass
        assert error.value.faults[0].remedy == "Wait for a run to end, or stop one: drumbeat stop RUN"
    check_free(planned(tmp_path / "run", pool[:1]))


def test_a_holder_does_not_block_other_processes(tmp_path: Path, pool: list[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not receive the message."""
    monkeypatch.setattr(gpu_locks, "TIMEOUT", 0.0)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0drumbeat/gpu/{pool[0]}")
        with pytest.raises(LaunchError) as error, hold_gpus(planned(tmp_path / "run", pool, ranks=2)):
            pass
    assert error.value.faults[0].given == f"""\
2 ranks with one GPU each, 1 of 2 free
GPU {pool[0]} is used by another process"""


LISTEN = """
import os, socket, sys, time
os.setuid(12345)
lock = socket.socket(socket.AF_UNIX)
lock.bind("\\0drumbeat/gpu/" + sys.argv[1])
lock.listen()
print("listens", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a process of another user")
def test_a_process_of_another_user_is_named_by_its_user_and_not_by_its_arguments(tmp_path: Path, pool: list[str]
                                                                                 ) -> None:
    command = [sys.executable, "-c", LISTEN, pool[0], "/runs/yours/20260131-120000-abcde/submitit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"listens\n"
            with pytest.raises(LaunchError, match=f"is used by process {other.pid} of user 12345"):
                check_free(planned(tmp_path / "run", pool[:1]))
        finally:
            other.kill()
