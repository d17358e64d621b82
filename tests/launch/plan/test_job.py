"""The plan is a pure function of config, machine and site."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError, RunError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.patience import SHORTEST, nccl_environment
from drumbeat.configs.run.files import write_json
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.site import Site
from drumbeat.launch.plan.job import Machine, command_text, plan_job, torchrun_command, usable_cpus
from tests.launch.tiny_plan import config, plan, topology


@pytest.mark.parametrize(("assignments", "backend", "cpus", "gpus", "expected"), [
    ([], "local", 8, 0, (1, 1, "cpu", 8)),
    (["launch.procs=3"], "local", 8, 0, (1, 3, "cpu", 2)),
    (["launch.procs=9"], "local", 8, 0, (1, 9, "cpu", 1)),
    ([], "local", 8, 4, (1, 4, "cuda", 2)),
    (["launch.gpus=2"], "local", 8, 4, (1, 2, "cuda", 4)),
    (["launch.gpus=0", "launch.procs=2"], "local", 8, 4, (1, 2, "cpu", 4)),
    (["launch.gpus=2", "launch.cpus_per_rank=3"], "local", 8, 4, (1, 2, "cuda", 3)),
    (["launch.procs=2", "launch.nodes=3"], "debug", 8, 0, (1, 1, "cpu", 8)),
    (["launch.gpus=2"], "debug", 8, 4, (1, 1, "cuda", 8)),
    (["launch.gpus=2"], "debug", 8, 0, (1, 1, "cpu", 8)),
    (["launch.gpus=0"], "debug", 8, 4, (1, 1, "cpu", 8)),
    (["launch.gpus=4", "launch.nodes=2"], "slurm", 2, 0, (2, 4, "cuda", 8)),
    (["launch.gpus=0", "launch.procs=4", "launch.nodes=2"], "slurm", 2, 0, (2, 4, "cpu", 2)),
])
def test_ranks_and_cores(tmp_path: Path, assignments: list[str], backend: str, cpus: int, gpus: int,
                         expected: tuple[int, int, str, int]) -> None:
    planned = plan(tmp_path, *assignments, backend=backend, cpus=cpus, gpus=gpus)  # type: ignore[arg-type]
    assert planned.topology == topology(*expected)


@pytest.mark.parametrize(("assignments", "backend", "gpus", "whats"), [
    (["launch.procs=11"], "local", 0, ["batch_size 10 is smaller than the world size, 11"]),
    (["launch.procs=13"], "local", 0, ["batch_size 12 is smaller than the world size, 13",
                                       "batch_size 10 is smaller than the world size, 13"]),
    (["launch.nodes=2", "launch.gpus=6"], "slurm", 0, ["batch_size 10 is smaller than the world size, 12"]),
    (["launch.gpus=2"], "local", 0, ["this machine has no GPU"]),
    (["launch.procs=4", "virtual_ranks=3"], "local", 0, ["3 virtual ranks cannot be divided among 4 ranks"]),
    (["virtual_ranks=11", "deterministic=false", "compile={mode: max-autotune}"], "local", 0, [
        "phases.finetune.batch_size 10 is smaller than the number of virtual ranks",
        "the same bits at any number of ranks need deterministic kernels",
        "torch.compile chooses kernels by the shapes that it has seen before, and which those are depends on the "
        "number of ranks", "torch.compile chooses kernels by their measured speed"]),
    (["virtual_ranks=2", "compile={dynamic: false, options: {max_autotune: true}}"], "local", 0, [
        "torch.compile chooses kernels by their measured speed"]),
    (["launch.gpus=3"], "local", 1, ["this machine has 1 GPU"]),
    (["launch.gpus=3"], "local", 2, ["this machine has 2 GPUs"]),
    (["launch.nodes=2"], "local", 0, ["more than one node needs a cluster"]),
    (["launch.nodes=2", "launch.gpus=8"], "local", 0, [
        "batch_size 12 is smaller than the world size, 16", "batch_size 10 is smaller than the world size, 16",
        "this machine has no GPU", "more than one node needs a cluster"]),
    (["launch.gpus=2", "launch.nodes=2", "launch.min_nodes=3"], "slurm", 0, [
        "the run cannot have at least 3 nodes: it has 2 at most"]),
    ([], "slurm", 4, ["the number of GPUs on each node is not given"]),
])
def test_resources_that_cannot_be_provided(tmp_path: Path, assignments: list[str], backend: str, gpus: int,
                                whats: list[str]) -> None:
    with pytest.raises(LaunchError) as error:
        plan(tmp_path, *assignments, backend=backend, gpus=gpus)  # type: ignore[arg-type]
    assert [fault.what for fault in error.value.faults] == whats


@pytest.mark.parametrize(("least", "planned"), [("1", 1), ("2", 2), ("3", None), ("null", None)])
def test_the_least_number_of_nodes(tmp_path: Path, least: str, planned: int | None) -> None:
    """If it is all of them, the run needs all."""
    found = plan(tmp_path, "launch.gpus=2", "launch.nodes=3", f"launch.min_nodes={least}", backend="slurm").topology
    assert (found.nodes, found.min_nodes, found.least_nodes) == (3, planned, planned or 3)


def test_as_many_ranks_as_samples_is_enough(tmp_path: Path) -> None:
    assert plan(tmp_path, "launch.procs=10").topology.world_size == 10


def test_the_environment_fixes_threads_and_finds_targets(tmp_path: Path) -> None:
    assert plan(tmp_path, "launch.procs=4").environment == {
        "PYTHONPATH": f"{ROOT}/src", "PYTHONSAFEPATH": "1", "DRUMBEAT_USER_PATH": "/home/me", "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "2"}


def test_nccl_gets_its_timeout_and_its_dump_file(tmp_path: Path) -> None:
    environment = plan(tmp_path, "launch.gpus=2", gpus=4).environment
    assert nccl_environment(SHORTEST).items() <= environment.items()
    assert {"TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"} <= environment.keys()
    longer = plan(tmp_path, "launch.gpus=2", "watchdog.timeout_minutes=60", gpus=4).environment
    assert longer["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] == "3600"


def test_deterministic_runs_do_not_reduce_in_nvlink_switches(tmp_path: Path) -> None:
    assert plan(tmp_path, "launch.gpus=2", gpus=4).environment["NCCL_NVLS_ENABLE"] == "0"
    assert "NCCL_NVLS_ENABLE" not in plan(tmp_path, "launch.gpus=2", "deterministic=false", gpus=4).environment


def test_nccl_settings_of_user_and_site_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    site = Site(environment={"TORCH_NCCL_DUMP_ON_TIMEOUT": "0"})
    machine = replace(Machine.here(), gpus=("0", "1"))
    assert "NCCL_NVLS_ENABLE" in machine.chosen
    job_plan = plan_job(config(tmp_path), run_dir=tmp_path / "run", backend="local", site=site, folder=tmp_path,
                    machine=machine).environment
    assert {"NCCL_NVLS_ENABLE", "TORCH_NCCL_DUMP_ON_TIMEOUT"}.isdisjoint(job_plan)
    assert {"OMP_NUM_THREADS", "TORCH_FR_BUFFER_SIZE"} <= job_plan.keys()


def test_targets_are_found_on_the_users_python_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/lib::relative")
    monkeypatch.chdir(tmp_path)
    assert Machine.here().python_path == (f"{tmp_path}/lib", f"{tmp_path}/relative")
    job_plan = plan_job(config(tmp_path), run_dir=tmp_path / "run", backend="local", site=Site(), folder=tmp_path,
                    machine=Machine(cpus=2, python_path=("/lib", str(tmp_path))))
    assert job_plan.environment["PYTHONPATH"] == os.pathsep.join([f"{ROOT}/src", "/lib", str(tmp_path)])
    assert job_plan.environment["DRUMBEAT_USER_PATH"] == os.pathsep.join([str(tmp_path), "/lib"])


def test_a_run_on_this_machine_chooses_from_the_gpus_that_are_visible(tmp_path: Path) -> None:
    environment = plan(tmp_path, "launch.gpus=2", gpus=4).environment
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("0,1,2,3", "PCI_BUS_ID")
    assert "CUDA_VISIBLE_DEVICES" not in plan(tmp_path, "launch.gpus=2", gpus=4, backend="slurm").environment
    assert "CUDA_VISIBLE_DEVICES" not in plan(tmp_path, "launch.gpus=0", gpus=4).environment


def test_a_run_uses_one_mig_instance(tmp_path: Path) -> None:
    """Any of the visible ones."""
    machine = Machine(cpus=8, gpus=("MIG-a", "MIG-b"))

    def planned(*assignments: str) -> JobPlan:
        return plan_job(config(tmp_path, *assignments), run_dir=tmp_path / "run", backend="local", machine=machine,
                        site=Site(), folder=tmp_path)

    assert planned().topology == topology(1, 1, "cuda", 8)
    assert planned().environment["CUDA_VISIBLE_DEVICES"] == "MIG-a,MIG-b"
    with pytest.raises(LaunchError) as error:
        planned("launch.gpus=2")
    assert str(error.value) == """\
error: CUDA lets a process use only one MIG instance
  where  launch.gpus
  given  2 ranks with one GPU each; the GPUs are MIG instances
  fix    Use --gpus 1; or disable MIG mode (nvidia-smi -mig 0, as root)."""


def test_a_containers_quota_bounds_the_cores(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert usable_cpus(tmp_path) == cores
    for text, expected in (("max 100000", cores), ("100000 100000", 1), ("50000 100000", 1), ("99900000 100", cores)):
        (tmp_path / "cpu.max").write_text(f"{text}\n")
        assert usable_cpus(tmp_path) == expected


def test_torchrun_meets_at_the_first_node(tmp_path: Path) -> None:
    planned = plan(tmp_path, "launch.procs=2")
    assert torchrun_command(planned, attempt="3", node="0", address="127.0.0.1", port="12345") == [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=static",
        "--node-rank=0", "--master-addr=127.0.0.1", "--master-port=12345", "--max-restarts=0", "-m",
        "drumbeat.trainers.worker", "/runs/small/RUN", "3"]
    planned = plan(tmp_path, "launch.gpus=4", "launch.nodes=2", backend="slurm")
    assert torchrun_command(planned, attempt="0", node="1", address="n1", port="12345") == [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=static",
        "--node-rank=1", "--master-addr=n1", "--master-port=12345", "--max-restarts=0", "-m",
        "drumbeat.trainers.worker", "/runs/small/RUN", "0"]
    open_yet = {"--node-rank=NODE", "--master-addr=ADDRESS", "--master-port=PORT", "ATTEMPT"}
    assert open_yet <= set(torchrun_command(planned))


def test_a_plan_is_read_back_the_same(tmp_path: Path) -> None:
    planned = plan(tmp_path, "launch.gpus=4", backend="slurm", site=Site(partition="big", setup=["module load x"]))
    planned.write(tmp_path / "plan.json")
    assert JobPlan.read(tmp_path / "plan.json") == planned


def test_a_damaged_plan_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a file of the run cannot be read: it is missing"):
        JobPlan.require(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", {"topology": {}, "site": {}})
    with pytest.raises(RunError, match=r"'topology\.nodes' is missing"):
        JobPlan.require(tmp_path / "plan.json")


def test_a_command_is_ready_to_paste() -> None:
    command = ["python", "-m", "torch", "--a=1", "-m", "x", "a b", "--c"]
    text = command_text(command)
    assert text == "python -m torch \\\n  --a=1 \\\n  -m x 'a b' \\\n  --c"
    pasted = f"python() {{ printf '%s|' \"$@\"; }}; {text}"
    done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}|" for word in command[1:])
