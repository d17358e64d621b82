"""A cluster and runs on it, for the tests that need a real SLURM; skips them on machines without SLURM."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, missing_programs
from tests.slurm.kinds import options
from tests.slurm.pool import Clusters
from tests.slurm.runs import SubmittedRun


def require(accounting: bool = False) -> None:
    """Skips the test if SLURM is not installed; fails it in CI, where these tests must run."""
    if missing := missing_programs(accounting):
        reason = f"a SLURM cluster{' with accounting' * accounting} needs {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """For tests that start a cluster themselves."""
    require()


@pytest.fixture(scope="session")
def accounting_installed() -> None:
    """For tests that start a cluster with accounting themselves."""
    require(accounting=True)


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with Clusters(lambda: tmp_path_factory.mktemp("slurm")) as clusters:
        yield clusters


@pytest.fixture
def cluster(request: pytest.FixtureRequest, clusters: Clusters) -> Iterator[Cluster]:
    """A cluster of the kind that `tests.slurm.kinds.on` names, and this process's environment such that submitit
    submits to it. The tests of this process share it; each finds it without jobs, with all nodes idle."""
    require(options(request.param)["accounting"])
    cluster = clusters.take(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SLURM_", "SBATCH_", "SRUN_")):
                patch.delenv(name)
        for name, value in cluster.environ.items():
            patch.setenv(name, value)
        yield cluster
    clusters.put_back(request.param)


Submit = Callable[..., SubmittedRun]
"""A folder, unless it is the test's own, and fields of `Site` -> a run that is submitted."""


@pytest.fixture
def submitted(cluster: Cluster, tmp_path: Path) -> Iterator[Submit]:
    """Submits runs with a fake torchrun. All of their jobs and processes end after the test."""
    runs: list[SubmittedRun] = []

    def submit(folder: Path = tmp_path, **site: Any) -> SubmittedRun:
        runs.append(SubmittedRun(cluster, folder, **site))
        return runs[-1]

    yield submit
    cluster.clear()
    assert [run.left() for run in runs] == [[]] * len(runs)


Allocate = Callable[..., str]
"""salloc's options -> the id of a job that only holds its nodes."""


@pytest.fixture
def allocate(cluster: Cluster) -> Allocate:
    def salloc(*options: str) -> str:
        done = subprocess.run(["salloc", "--no-shell", "--nodes=2", *options], capture_output=True, text=True,
                              check=True)
        found = re.search(r"Granted job allocation (\d+)", done.stderr)
        assert found, done.stderr
        return found[1]

    return salloc
