"""Which checkpoints of a run are good: read from their folders, without torch.

A checkpoint's manifest.json, written last, names its files with their sizes and digests. Without it, there is none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from drumbeat.configs.run.folder import RunDir, read_json

FORMAT = 1
"""Version of what a checkpoint's folder holds."""


def checkpoint_path(run: RunDir, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run.checkpoints / f"step-{step:08d}"


def saved_steps(run: RunDir) -> list[int]:
    """The steps that have a folder, the newest first."""
    return sorted((int(path.name.partition("-")[2]) for path in run.checkpoints.glob("step-*")), reverse=True)


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; nothing where all files have the size and digest they were written with."""
    manifest = read_json(path / "manifest.json")
    if not manifest:
        return "no manifest"
    if manifest.get("format") != FORMAT:
        return f"format {manifest.get('format')}, this version reads {FORMAT}"
    for name, written in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != written["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {written['bytes']}"
        with open(file, "rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != written["sha256"]:
                return f"the digest of {name} differs"
    return ""
