"""Stand-ins for programs of SLURM's."""

from __future__ import annotations

import os
from pathlib import Path


def programs(folder: Path, **scripts: str) -> str:
    """A PATH with these programs of SLURM's, shell scripts."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
