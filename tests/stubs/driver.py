"""A stub of NVIDIA's driver (libcuda.c): built with gcc, it logs the processes that call cuInit."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("libcuda.c")


@dataclass(frozen=True)
class Call:
    """One call of cuInit."""

    pid: int
    rank: str
    """RANK in the process's environment; "-" if it is not set."""
    name: str
    """The process's name, as in /proc/PID/comm."""


@dataclass(frozen=True)
class StubDriver:
    """The library, and the file that every process loading it logs to."""

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> StubDriver:
        """Compiles the library into `folder`. Without gcc it skips the test, or fails it in CI."""
        if shutil.which("gcc") is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
                "no gcc on PATH; on Debian or Ubuntu: sudo apt install gcc libc6-dev")
        library = folder / "libcuda.so.1"
        subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)],
                       check=True)
        (folder / "libnvidia-ml.so.1").symlink_to(library)
        return cls(folder)

    @property
    def log(self) -> Path:
        return self.folder / "cuinit.log"

    @property
    def environment(self) -> dict[str, str]:
        """This process's variables, and those that make a process load the library and log to `log`."""
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("LD_LIBRARY_PATH")]))
        return os.environ | {"LD_LIBRARY_PATH": path, "CUINIT_LOG": str(self.log)}

    def calls(self) -> list[Call]:
        """All calls of cuInit so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [Call(int(pid), rank, name) for pid, rank, name in (line.split("\t") for line in lines)]
