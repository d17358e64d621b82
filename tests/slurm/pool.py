"""The clusters of a test session: one of each kind, started for the first test that needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.slurm.cluster import Cluster, ClusterError
from tests.slurm.kinds import options


class Clusters:
    """The running clusters. Leaving the context ends them."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._up: dict[str, Cluster] = {}

    def __enter__(self) -> Clusters:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for kind in list(self._up):
            self._up.pop(kind).__exit__()

    def take(self, kind: str) -> Cluster:
        """The cluster of this kind: no job is in its queue, and all of its nodes are idle."""
        if kind not in self._up:
            cluster = Cluster(self._new_folder(), **options(kind))
            self._up[kind] = cluster.__enter__()
        return self._up[kind]

    def put_back(self, kind: str) -> None:
        """Ends the jobs that a test has left. Raises `ClusterError` if the cluster does not become idle: then that
        cluster is ended, and the next test gets another."""
        try:
            self._up[kind].clear()
        except ClusterError:
            self._up.pop(kind).__exit__()
            raise
