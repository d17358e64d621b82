"""Checkpoints without pickle: tensors as safetensors, the rest as JSON, and a manifest with sizes and digests.

    checkpoints/step-00000120/
        model.safetensors       parameters and buffers; any tool reads it
        optimizer.safetensors   <parameter name>/<state name>
        state.json              progress, the optimizer's and the scheduler's numbers
        manifest.json           written last; files that it does not list do not count
    checkpoints/last, best      links, which are moved when their checkpoint is safely on disk
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.importing import environment
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.disk import TEMPORARY
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import FORMAT, QUARANTINED, checkpoint_path, damage, saved_steps, written_format
from drumbeat.configs.run.versions import Versions
from drumbeat.trainers.checkpoints.staging import CPU, Files, Staging
from drumbeat.trainers.checkpoints.tensors import read_tensors
from drumbeat.trainers.checkpoints.writer import Order

SECONDS_BETWEEN_TRIES = 2.0
SECONDS_BETWEEN_SIGNALS = 0.2

BRIEF_SECONDS = 10.0

MAX_WRITERS = 3
"""How often a killed writer is replaced while it writes one checkpoint."""


class SaveError(Exception):
    """A checkpoint could not be written."""

    def __init__(self, reason: str, file: str) -> None:
        super().__init__(f"the checkpoint cannot be written: {reason}{f' ({file})' if file else ''}")


class LostBestError(Exception):
    """The best weights are corrupted. Restarting the run trains them again, from a checkpoint before them."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"the best weights, of step {step}, are corrupted ({reason}); an older checkpoint is used")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are intact."""

    path: Path
    state: CheckpointState

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def model(self) -> dict[str, Tensor]:
        return read_tensors(self.path / "model.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        return read_tensors(self.path / "optimizer.safetensors")


class Checkpoints:
    """Saves the checkpoints of a run on rank 0 of one attempt, and finds and loads them.

    `save` copies the state and returns; a separate process writes it (`writer.py`). At most one save is in progress.
    """

    def __init__(self, run: RunDir, attempt: Attempt, *, keep: int, patience: float = 0.0, device: torch.device = CPU,
                 versions: Versions | None = None, config: Mapping[str, Any] | None = None,
                 on_pause: Callable[[str], None] = lambda reason: None) -> None:
        self.run = run
        self.attempt = attempt
        self.folder = run.checkpoints
        self.keep = keep
        self.patience = patience
        """Seconds to wait for a disk that is full, read-only or gone."""
        self.device = device
        """The device of the tensors that are saved."""
        self.versions = versions
        """The versions that this rank computes with."""
        self.config = dict(config or {})
        """The part of the config that `CheckpointState` holds."""
        self.on_pause = on_pause
        """Called with the reason when the run pauses for the disk, and with '' when it continues."""
        self.staging: Staging | None = None
        self.writer: subprocess.Popen[str] | None = None
        self.pending = ""
        """The order that the writer is carrying out; '' for none."""

    def lay_out(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Allocates and touches the memory for a copy of such tensors, and starts the writer, so that no step waits for
        it. The values of the tensors do not matter."""
        self.wait()
        self._staging().lay_out(_files(model, optimizer))

    def save(self, progress: Progress, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor],
             numbers: Mapping[str, dict[str, Any]]) -> None:
        """Starts a save. `numbers` is the rest of the `CheckpointState`. Waits first for a save in progress, and raises
        its `SaveError`."""
        began = time.monotonic()
        self.wait()
        if (waited := time.monotonic() - began) > 1:
            print(f"waited {waited:.1f} s for the previous checkpoint to be written", flush=True)
        staging = self._staging()
        staging.fill(_files(model, optimizer))
        order = Order(attempt=str(self.attempt.path), step=progress.step, keep=self.keep,
                      is_best=progress.best.get("step") == progress.step,
                      state=CheckpointState(progress=progress, versions=self.versions, config=self.config,
                                            **numbers), files=staging.parts, reordered=(*staging.reordered,))
        self.pending = json.dumps(order.as_json()) + "\n"
        self._send_order()

    def check(self) -> None:
        """Raises `SaveError` if the save in progress has failed. Cheap enough for each step."""
        if self.pending and self.writer is not None and self.writer.stdout is not None:
            ready, _, _ = select.select([self.writer.stdout], [], [], 0)
            if ready:
                self.wait()

    def wait(self) -> None:
        """Waits until the save in progress is on disk. Retries, for up to `patience` seconds, if the disk is full or
        cannot be written, and replaces a writer that was killed. Raises `SaveError`."""
        paused_at, killed = 0.0, 0
        while self.pending and self.writer is not None and self.writer.stdout is not None:
            line = self._answer(self.writer)
            if not line and killed < MAX_WRITERS and self.staging is not None:
                killed += 1
                print("the process that writes checkpoints was killed; it is replaced", flush=True)
                self.writer.communicate()
                self.writer = _start_writer(self.staging.fd)
                self._send_order()
                continue
            answer: dict[str, Any] = json.loads(line) if line else {"error": "its writer is always killed"}
            error = SaveError(answer.get("error", ""), answer.get("file", ""))
            if "error" not in answer:
                self.pending = ""
                if paused_at:
                    self.on_pause("")
                return
            now = time.monotonic()
            paused_at = paused_at or now
            if answer.get("errno") not in TEMPORARY or now - paused_at > self.patience or self.attempt.stop.exists():
                self.pending = ""
                raise error
            self.on_pause(str(error))
            time.sleep(min(SECONDS_BETWEEN_TRIES, self.patience))
            self._send_order()

    def _answer(self, writer: subprocess.Popen[str]) -> str:
        """The writer's next line; '' if it was killed."""
        assert writer.stdout is not None
        _hurry(writer, math.inf)
        return writer.stdout.readline()

    def wait_briefly(self, seconds: float = BRIEF_SECONDS) -> None:
        """Waits a short time for the save in progress, because the writer ends together with this rank, which has
        failed."""
        if self.pending and self.writer is not None:
            _hurry(self.writer, seconds)

    def close(self) -> None:
        """Waits for the save in progress, ends the writer and frees the shared memory. Raises `SaveError`."""
        try:
            self.wait()
        finally:
            if self.writer is not None and self.staging is not None:
                self.writer.communicate()  # closes its input, so it exits
                self.staging.close()
                self.writer = self.staging = None

    def _staging(self) -> Staging:
        """The shared memory, and a writer that reads it."""
        if self.staging is None or self.writer is None:
            self.staging = Staging(self.device)
            self.writer = _start_writer(self.staging.fd)
        return self.staging

    def _send_order(self) -> None:
        assert self.writer is not None and self.writer.stdin is not None
        with suppress(BrokenPipeError):  # noticed by the missing answer
            self.writer.stdin.write(self.pending)
            self.writer.stdin.flush()

    def newest(self, warn: Any = print) -> Checkpoint | None:
        """The newest intact checkpoint whose best weights are there, too, or from which they are trained again;
        otherwise the newest intact one; None if there is none. A corrupted one is renamed to `quarantined-...`, and
        `warn` gets the reason. Raises `RunError` for a checkpoint of another format.

        Without the best weights a phase that starts from them could not begin."""
        without_best: Checkpoint | None = None
        if self.folder.is_symlink():
            raise RunError(Fault(what="the run's checkpoints are in another folder, to which a link leads",
                                 where=str(self.folder), given=str(self.folder.readlink()),
                                 remedy="Move them back. To keep whole runs on another disk: --runs DIR"))
        for path in (checkpoint_path(self.run, step) for step in saved_steps(self.run)):
            if (written := written_format(path)) != FORMAT:
                raise RunError(Fault(what="another version of Drumbeat has written the checkpoints", where=str(path),
                                     given=f"format {written}; this version reads {FORMAT}",
                                     remedy="Resume with that version."))
            reason = damage(path)
            if not reason and (self.has_best((found := _read(path)).progress) or (
                    without_best and found.progress.step < without_best.progress.best["step"])):
                return found
            if not reason:
                without_best = without_best or found
                warn(f"the best weights of checkpoint {path.name}, of step {found.progress.best['step']}, are missing; "
                     "trying an older one")
            else:
                warn(f"checkpoint {path.name} is corrupted ({reason}); trying an older one")
                _quarantine(path)
        if without_best:
            warn(f"no older one is from before them: using {without_best.path.name}")
        return without_best

    def has_best(self, progress: Progress) -> bool:
        """Whether the best weights of a run, if it has some, are there."""
        best = progress.best
        return not best or (checkpoint_path(self.run, best["step"]) / "manifest.json").exists()

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, whose files rank 0 has checked."""
        return _read(checkpoint_path(self.run, step))

    def weights(self, step: int) -> dict[str, Tensor]:
        """The best parameters and buffers, saved at a step. If that checkpoint is missing or corrupted, raises
        `LostBestError` if a restart can train it again, otherwise `RunError`."""
        self.check_best(step)
        return read_tensors(checkpoint_path(self.run, step) / "model.safetensors")

    def check_best(self, step: int) -> None:
        """Raises the errors of `weights`."""
        self.wait()
        path = checkpoint_path(self.run, step)
        if not (reason := damage(path)):
            return
        if path.exists():
            _quarantine(path)
        if any(one < step and not damage(checkpoint_path(self.run, one)) for one in saved_steps(self.run)):
            raise LostBestError(step, reason)
        raise RunError(Fault(what=f"the best weights, of step {step}, cannot be used ({reason}), and there is no older "
                             "checkpoint from which to train them again", where=str(path),
                             remedy="Restore that folder from a copy, and resume the run; or continue without them, "
                                    "from the last weights: drumbeat resume RUN"))


def _files(model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> Files:
    return {"model.safetensors": model, "optimizer.safetensors": optimizer}


def _quarantine(path: Path) -> None:
    """Renames a corrupted checkpoint, so that no run resumes from it."""
    quarantined = path.with_name(f"{QUARANTINED}{path.name}")
    shutil.rmtree(quarantined, ignore_errors=True)
    path.rename(quarantined)


def _start_writer(memory: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "drumbeat.trainers.checkpoints.writer", str(memory)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[memory],
                            env=os.environ | environment("", []))


def _hurry(writer: subprocess.Popen[str], seconds: float) -> None:
    """Waits until the writer has answered or was killed, for at most `seconds`. It hurries, because this rank waits."""
    assert writer.stdout is not None
    until = time.monotonic() + seconds
    ready: list[Any] = []
    while not ready and (left := until - time.monotonic()) > 0:
        writer.send_signal(signal.SIGURG)  # again and again: a writer that is still starting ignores it
        ready, _, _ = select.select([writer.stdout], [], [], min(SECONDS_BETWEEN_SIGNALS, left))


def _read(path: Path) -> Checkpoint:
    return Checkpoint(path, CheckpointState.require(path / "state.json"))
