"""The parts of a run's script on SLURM; tests/launch/backends/test_slurm.py compares whole scripts."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.plan import Allocation, JobPlan
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.site import Site
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.script import LOCAL_CLUSTER, NODES, REQUEUE, node_command, setup_lines
from tests.launch.tiny_plan import plan

SITE = Site(setup=["module load cuda", "ulimit -n 4096"], environment={"HF_HOME": "/scratch/my models"})


def slurm_plan(folder: Path, site: Site | None = None) -> JobPlan:
    """A plan of one rank on the CPU."""
    return plan(folder, "launch.gpus=0", backend="slurm", site=site)


def test_the_sites_commands_come_first_and_values_are_quoted(tmp_path: Path) -> None:
    made = replace(slurm_plan(tmp_path, site=SITE), environment={
        "PYTHONPATH": "/my code/src", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "2"})
    assert setup_lines(made, 16)[:-1] == [
        "module load cuda", "ulimit -n 4096", "export HF_HOME='/scratch/my models'", "export SRUN_CPUS_PER_TASK=16",
        LOCAL_CLUSTER, "export PYTHONPATH='/my code/src'", "export PYTHONSAFEPATH=1"]


def test_a_nodes_launcher_runs_in_the_sites_container(tmp_path: Path) -> None:
    made = replace(slurm_plan(tmp_path), python="/my env/bin/python", run_dir="/runs/a run")
    command = "'/my env/bin/python' -u -m submitit.core._submit '/runs/a run/submitit'"
    assert node_command(made) == command
    inside = replace(made, site=Site(prefix="apptainer exec --nv image.sif"))
    assert node_command(inside) == f"apptainer exec --nv image.sif {command}"


@pytest.mark.parametrize(("change", "named"), [
    ({"folder": "/home/me/a\n#SBATCH --account=other"}, "the current folder"),
    ({"folder": "/a\nb", "environment": {"PYTHONPATH": "/a\nb/src", "PYTHONSAFEPATH": "1"}}, "the current folder"),
    ({"run_dir": "/runs\rx/small/RUN"}, "the run folder"),
    ({"python": "/env\x1b[2J/bin/python"}, "the path of Python"),
    ({"name": "small\ntouch /tmp/x"}, "name"),
    ({"site": Site(partition="gpu\ntouch /tmp/x")}, "profile, partition"),
    ({"site": Site(prefix="exec\x0bx")}, "profile, prefix"),
    ({"site": Site(sbatch={"comment": "a\nb"})}, "profile, sbatch.comment"),
    ({"site": Site(sbatch={"mail\ntouch": "x"})}, "profile, sbatch"),
    ({"site": Site(sbatch={"x": ["a", "b\n"]})}, "profile, sbatch.x"),
    ({"site": Site(environment={"A": "a\nb"})}, "profile, environment.A"),
    ({"site": Site(environment={"A; touch x; B": "a"})}, "profile, environment"),
    ({"site": Site(setup=["module load x\r"])}, "profile, setup"),
    ({"environment": {"PYTHONPATH": "/a\n/b", "PYTHONSAFEPATH": "1"}}, "environment.PYTHONPATH"),
], ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("name", ["slurm", "here"])
def test_no_value_becomes_a_line_of_the_script(name: BackendName, change: dict[str, Any], named: str, tmp_path: Path
                                               ) -> None:
    made = replace(slurm_plan(tmp_path), allocation=Allocation(job_id="1", nodes=1, cpus_per_node=1), **change)
    with pytest.raises(LaunchError) as error:
        backend_of(name).request(made)
    assert {fault.where.removeprefix("the cluster's ") for fault in error.value.faults} == {named}


def test_a_setup_of_several_lines_is_a_part_of_the_script(tmp_path: Path) -> None:
    made = replace(slurm_plan(tmp_path), site=Site(setup=["if true\nthen\n\tmodule load cuda\nfi"]))
    assert "\nif true\nthen\n\tmodule load cuda\nfi\n" in backend_of("slurm").request(made).text


@pytest.mark.parametrize("setup", ["", "set -eu"])
@pytest.mark.parametrize(("codes", "calls", "code"), [
    ([0], 1, 0), ([1], 1, 1), ([128], 1, 128), ([129, 137, 3], 3, 3), ([137] * 30, 21, 137),
], ids=["ended", "failed", "a limit", "killed twice", "killed always"])
def test_launchers_that_are_killed_are_started_again(tmp_path: Path, codes: list[int], calls: int, code: int,
                                                      setup: str) -> None:
    """By the function in the script that takes the place of srun, which exits with more than 128 after a signal."""
    (tmp_path / "codes").write_text("".join(f"{one}\n" for one in codes))
    (tmp_path / "srun").write_text(f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> calls\n'
                                   'exit "$(sed -n "$(wc -l < calls)p" codes)"\n')
    (tmp_path / "srun").chmod(0o755)
    (*_, function) = setup_lines(slurm_plan(tmp_path), 1)
    done = subprocess.run(["bash", "-c", f"{setup}\nPATH={tmp_path}:$PATH\n{function}\nsrun --label x"], check=False)
    made = (tmp_path / "calls").read_text().splitlines()
    assert (done.returncode, len(made)) == (code, calls)
    assert made == ["--label x", *["--immediate=60 --label x"] * (calls - 1)]


def test_a_launcher_in_a_container_has_its_job_requeued_from_outside(tmp_path: Path) -> None:
    """It exits with code 76, because there is no scontrol in the container."""
    for name, script in (("srun", 'exit "$1"'), ("scontrol", f'echo "$@" > {tmp_path}/asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (*_, function) = setup_lines(slurm_plan(tmp_path), 1, after=REQUEUE)
    program = f"PATH={tmp_path}:$PATH SLURM_JOB_ID=4711\n{function}\nsrun"
    assert subprocess.run(["bash", "-c", f"{program} 74"], check=False).returncode == 74
    assert not (tmp_path / "asked").exists()
    assert subprocess.run(["bash", "-c", f"{program} 76"], check=False).returncode == 76
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


@pytest.mark.parametrize(("answer", "nodes"), [("echo 1", "1"), ("exit 1", "2"), ("exit 0", "2")],
                         ids=["lost one", "no answer", "unknown"])
def test_launchers_are_started_again_on_the_nodes_that_are_left(tmp_path: Path, answer: str, nodes: str) -> None:
    for name, script in (("srun", f"echo $SLURM_NNODES $SLURM_NTASKS >> {tmp_path}/started; [ $1 ] || exit 137"),
                         ("squeue", answer)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (*_, function) = setup_lines(slurm_plan(tmp_path), 1, NODES)
    program = f"set -eu\nexport PATH={tmp_path}:$PATH SLURM_JOB_ID=7 SLURM_NNODES=2 SLURM_NTASKS=2\n{function}\nsrun"
    assert subprocess.run(["bash", "-c", program], check=False).returncode == 0
    assert (tmp_path / "started").read_text() == f"2 2\n{nodes} {nodes}\n"
