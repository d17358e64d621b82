"""Checks before a job is queued: whether the nodes see the run folder, and whether SLURM accepts the request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.site import Site
from drumbeat.launch.backends.cluster_checks import (
    check_cluster,
    check_shared,
    file_system,
    known_to_nodes,
    unshared,
    unshared_python,
)
from drumbeat.launch.backends.slurm import Slurm
from tests.launch.fake_slurm import programs
from tests.launch.tiny_plan import config, plan

MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
home:/export /home nfs4 rw 0 0
tmpfs /home/me/in\\040memory tmpfs rw 0 0
/dev/sda1 /home ext4 rw 0 0
"""

SITE = Site(partition="gqu", account="physics", time_minutes=99)


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mounts"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(("folder", "kind"), [
    ("/home/you/runs", "ext4"), ("/home/me/in memory/runs", "tmpfs"), ("/scratch/runs", "overlay"),
    ("/homeless", "overlay"), ("/dev/shm/x", "tmpfs"),
])
def test_the_file_system_of_a_folder(mounts: Path, folder: str, kind: str) -> None:
    """The innermost mount; of several at one place the last, which hides the others."""
    assert file_system(Path(folder), mounts) == kind


def test_a_run_folder_that_the_nodes_would_not_see(mounts: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo n1; echo n2"))
    assert unshared(Path("/home/you/runs"), mounts) is None
    assert "it is on tmpfs" in str(unshared(Path("/home/me/in memory/runs"), mounts))
    assert "it is on overlay" in str(unshared(Path("/scratch/runs"), mounts))
    assert "every machine has its own /var/tmp" in str(unshared(Path("/var/tmp/runs"), tmp_path / "none"))
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="hostname"))
    assert unshared(Path("/var/tmp/runs"), mounts) is None  # this machine is all of the cluster


def test_a_python_that_the_nodes_would_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in a temporary folder."""
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo n1; echo n2"))
    assert unshared_python(Path("/usr/bin/python3")) is None
    assert "every machine has its own /tmp" in str(unshared_python(Path("/tmp/env/bin/python")))
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="hostname"))
    assert unshared_python(Path("/tmp/env/bin/python")) is None  # this machine is all of the cluster


def test_the_python_of_a_container_is_on_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo n1; echo n2"))
    found = replace(planned(tmp_path), python="/tmp/env/bin/python")
    with pytest.raises(LaunchError, match="the nodes of the cluster cannot see this Python"):
        check_shared(found)
    check_shared(replace(found, site=replace(SITE, prefix="apptainer exec image.sif")))


def planned(folder: Path) -> JobPlan:
    return JobPlan(**vars(plan(folder, "launch.gpus=4", backend="slurm", site=SITE)) | {"run_dir": "/home/me/runs/RUN"})


def test_sbatch_tests_the_exact_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "sbatch: Job 7 to start at 2026-01-02T03:04:05 using 32 processors on nodes n[1-2] in partition main"
    monkeypatch.setenv("PATH", programs(
        tmp_path, sinfo="hostname",
        sbatch=f"cat > {tmp_path}/script; echo $@ > {tmp_path}/arguments; echo '{answer}' >&2"))
    request = Slurm().request(planned(tmp_path))
    assert check_cluster(request) == "SLURM would start it at 2026-01-02 03:04:05 on n[1-2]"
    assert (tmp_path / "script").read_text() == request.text
    assert (tmp_path / "arguments").read_text() == "--test-only\n"
    far = answer.replace("2026", "2537")
    for silence in (f"echo '{far}' >&2",
                    "echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
                    "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1"):
        monkeypatch.setenv("PATH", programs(tmp_path, sbatch=silence))
        assert check_cluster(request) == ""  # submitting has its own patience
    monkeypatch.setenv("PATH", programs(tmp_path, sbatch="echo 'allocation failure: no' >&2; exit 1"))
    with pytest.raises(LaunchError, match="SLURM would reject this job"):
        check_cluster(request)


def test_what_only_the_nodes_know_is_noted(mounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be installed or copied on each node, so it is no error; what a file server has is checked here."""
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\nfiles:/net /net nfs4 rw 0 0\nib0@o2ib:/lustre /lustre lustre rw 0 0\n")
    data = ("data.root=/scratch/pictures", "data.train={_target_: drumbeat.data.ImageFolder, root: \"${data.root}/a\"}",
            "data.validation={_target_: drumbeat.data.ImageFolder, root: /lustre/pictures}")
    planned = replace(plan(tmp_path, "launch.gpus=0"), python="/opt/lab/bin/python", folder="/net/me")
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo n1; echo n2"))
    assert known_to_nodes(planned, config(tmp_path, *data), mounts) == [
        "only the nodes know whether they have /scratch/pictures (data), /opt/lab/bin/python (Python), which are on "
        "this machine's own disks"]
    shared = replace(planned, python="/net/lab/bin/python")
    assert known_to_nodes(shared, config(tmp_path, *data[2:]), mounts) == []
    container = replace(planned, site=Site(prefix="apptainer exec image.sif"))
    assert known_to_nodes(container, config(tmp_path, *data[2:]), mounts) == []
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="hostname"))
    assert known_to_nodes(planned, config(tmp_path, *data), mounts) == [], "this machine is all of the cluster"
