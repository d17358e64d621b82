"""Checkpoints without pickle: tensors as safetensors, the rest as JSON, and a manifest with sizes and digests.

    checkpoints/step-00000120/
        model.safetensors       parameters and buffers; any tool reads it
        optimizer.safetensors   <parameter name>/<state name>
        state.json              progress, the optimizer's and the scheduler's numbers
        manifest.json           written last: what is not in it does not count
    checkpoints/last, best      links, moved only when what they point to is safely on disk
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.errors import Fault, RunError
from configs.rundir import Attempt, RunDir, read_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come. Position, order and randomness follow from it."""

    step: int = 0
    """Optimizer steps taken, over all phases."""
    phase: int = 0
    phase_step: int = 0
    """Steps taken in that phase; all of them where the phase is over."""
    samples: int = 0
    """Samples seen, over all phases."""
    skipped: int = 0
    """Of these, samples that could not be read, and that others stood in for."""
    ledger: list[dict[str, Any]] = field(default_factory=list)
    """Which samples were used: a `data.ledger.Span` for each stretch of steps between two checkpoints."""
    data: dict[str, Any] = field(default_factory=dict)
    """The training set as it was: its `samples` and, where it can tell, the digests of its `files` and `times`."""
    best: dict[str, Any] = field(default_factory=dict)
    """The best evaluation so far: its `step` and its metrics."""
    last: dict[str, Any] = field(default_factory=dict)
    """The newest evaluation, likewise."""

    def advanced(self, samples: int) -> Progress:
        return replace(self, step=self.step + 1, phase_step=self.phase_step + 1, samples=self.samples + samples)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found good."""

    path: Path
    progress: Progress
    state: dict[str, Any]
    """What `save` was given beside the tensors."""

    def model(self) -> dict[str, Tensor]:
        return load_file(self.path / "model.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        return load_file(self.path / "optimizer.safetensors")


class Checkpoints:
    """The checkpoints of a run, as the writer of one attempt sees them."""

    def __init__(self, run: RunDir, attempt: Attempt, *, keep: int) -> None:
        self.run = run
        self.attempt = attempt
        self.folder = run.checkpoints
        self.keep = keep

    def save(self, progress: Progress, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor],
             state: dict[str, Any]) -> Path:
        """Writes a checkpoint and only then makes it the newest, moves `best` if it is the best, and prunes.

        Readers see all of it or nothing. Raises `RunError` where a newer attempt has taken over: then this process was
        cut off, and must not write.
        """
        final = self._path(progress.step)
        if not (final / "manifest.json").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f".{final.name}.{os.getpid()}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            save_file(_plain(model), temporary / "model.safetensors")
            save_file(_plain(optimizer), temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(json.dumps({"progress": asdict(progress)} | state, indent=1))
            files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in temporary.iterdir()}
            manifest = {"format": FORMAT, "step": progress.step, "attempt": self.attempt.number, "files": files}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for path in (*temporary.iterdir(), temporary):
                _flush(path)
            self._check_newest()
            if final.exists():  # without a manifest: half-written by somebody
                shutil.rmtree(final)
            temporary.rename(final)
            _flush(self.folder)
        self._check_newest()
        self._point("last", final)
        if progress.best.get("step") == progress.step:
            self._point("best", final)
        self._prune(progress)
        return final

    def newest(self, warn: Any = print) -> Checkpoint | None:
        """The newest checkpoint whose files are as they were written; None where there is none. A damaged one is set
        aside as `bad-...`, and `warn` is told why."""
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            reason = damage(path)
            if not reason:
                return _read(path)
            warn(f"checkpoint {path.name} is damaged ({reason}); looking for an older one")
            aside = path.with_name(f"bad-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step that somebody has found good."""
        return _read(self._path(step))

    def weights(self, step: int) -> dict[str, Tensor]:
        """Parameters and buffers as saved at a step. Raises `RunError` where that checkpoint is gone or damaged."""
        path = self._path(step)
        if reason := damage(path):
            raise RunError(Fault(what=f"the weights of step {step} cannot be used: {reason}", where=str(path)))
        return load_file(path / "model.safetensors")

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _check_newest(self) -> None:
        newest = self.run.newest_attempt()
        if newest is not None and newest.number > self.attempt.number:
            raise RunError(Fault(what=f"attempt {newest.number} has taken over this run", where=str(self.run.path),
                                 given=f"attempt {self.attempt.number} still saving"))

    def _point(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, self.folder / name)
        _flush(self.folder)

    def _prune(self, progress: Progress) -> None:
        """Removes all but the newest few and the best one that each of these counts on."""
        paths = sorted(self.folder.glob("step-*"))
        kept = set(paths[-self.keep:])
        kept |= {self._path(best["step"]) for path in kept
                 if (best := read_json(path / "state.json").get("progress", {}).get("best"))}
        for path in set(paths) - kept:
            (path / "manifest.json").unlink(missing_ok=True)  # first: half-removed is not complete
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*.tmp"):
            if not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text())
    return Checkpoint(path, Progress(**state.pop("progress")), state)


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
        if _digest(file) != written["sha256"]:
            return f"the digest of {name} differs"
    return ""


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the standard memory order: safetensors takes no other, and no two that share memory."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
