"""The fixture `cluster`, and what decides whether tests that need a real SLURM can run here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing_programs


def require(accounting: bool = False) -> None:
    """Skip where SLURM is not installed; fail in CI, where skipping in silence would be the end of these tests."""
    if missing := missing_programs(accounting):
        reason = f"a SLURM cluster{' with accounting' * accounting} needs {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """For tests that bring up a cluster themselves."""
    require()


@pytest.fixture(scope="session")
def accounting_installed() -> None:
    """For tests that bring up a cluster with accounting."""
    require(accounting=True)


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster for all tests of a module, and this process's environment such that submitit submits to it.

    Another kind of cluster, or several:
    `@pytest.mark.parametrize("cluster", [{"proctrack": "pgid"}], indirect=True, scope="module")`.
    """
    options = getattr(request, "param", {})
    require(options.get("accounting", False))
    with Cluster(tmp_path_factory.mktemp("slurm"), **options) as cluster, pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SLURM_", "SBATCH_", "SRUN_")):
                patch.delenv(name)
        for name, value in cluster.environ.items():
            patch.setenv(name, value)
        yield cluster
