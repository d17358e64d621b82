"""Checkpoints without pickle: tensors as safetensors, the rest as JSON, and a manifest with sizes and digests.

    checkpoints/step-00000120/
        model.safetensors       parameters and buffers; any tool reads it
        optimizer.safetensors   <parameter name>/<state name>
        state.json              progress, the optimizer's and the scheduler's numbers
        manifest.json           written last: what is not in it does not count
    checkpoints/last, best      links, moved only when what they point to is safely on disk
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.importing import environment
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.disk import PASSING
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.manifest import FORMAT, QUARANTINED, checkpoint_path, damage, saved_steps, written_format
from drumbeat.configs.run.versions import Versions
from drumbeat.trainers.checkpoints.staging import CPU, Files, Staging
from drumbeat.trainers.checkpoints.writer import Order

SECONDS_BETWEEN_TRIES = 2.0

SETTLE_SECONDS = 10.0

WRITERS = 3
"""Times that a killed writer is replaced while it writes one checkpoint."""


class SaveError(Exception):
    """A checkpoint could not be written."""

    def __init__(self, reason: str, file: str) -> None:
        super().__init__(f"the checkpoint cannot be written: {reason}{f' ({file})' if file else ''}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found good."""

    path: Path
    state: CheckpointState

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def model(self) -> dict[str, Tensor]:
        return load_file(self.path / "model.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        return load_file(self.path / "optimizer.safetensors")


class Checkpoints:
    """The checkpoints of a run, as rank 0 of one attempt saves them, and as anybody finds them.

    `save` copies the state and returns; a process of its own writes it (`writer.py`). One save is under way at
    most.
    """

    def __init__(self, run: RunDir, attempt: Attempt, *, keep: int, patience: float = 0.0, device: torch.device = CPU,
                 versions: Versions | None = None,
                 tell: Callable[[str], None] = lambda words: None) -> None:
        self.run = run
        self.attempt = attempt
        self.folder = run.checkpoints
        self.keep = keep
        self.patience = patience
        """Seconds to wait for a disk that is full, read-only or gone."""
        self.device = device
        """Where the tensors are that are saved."""
        self.versions = versions
        """The versions that this rank computes with."""
        self.tell = tell
        """Told why the run pauses for that, and '' when it goes on."""
        self.staging: Staging | None = None
        self.writer: subprocess.Popen[str] | None = None
        self.under_way = ""
        """The order that is being carried out."""

    def lay_out(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Makes and touches the memory for a copy of such tensors, and starts the writer, so that no step has to wait
        for that. Their values do not matter."""
        self.wait()
        self._staging().lay_out(_files(model, optimizer))

    def save(self, progress: Progress, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor],
             numbers: Mapping[str, dict[str, Any]]) -> None:
        """Begins to save: `numbers` is what a `CheckpointState` holds beside the progress. Waits first for a save that
        is still under way. Raises `SaveError` of that one."""
        began = time.monotonic()
        self.wait()
        if (waited := time.monotonic() - began) > 1:
            print(f"the save before this one took {waited:.1f} s longer than the time between them", flush=True)
        staging = self._staging()
        staging.fill(_files(model, optimizer))
        order = Order(attempt=str(self.attempt.path), step=progress.step, keep=self.keep,
                      is_best=progress.best.get("step") == progress.step,
                      state=CheckpointState(progress=progress, versions=self.versions, **numbers), files=staging.parts)
        self.under_way = json.dumps(order.as_json()) + "\n"
        self._give_order()

    def check(self) -> None:
        """Raises `SaveError` where the save under way has failed. Cheap enough for each step."""
        if self.under_way and self.writer is not None and self.writer.stdout is not None:
            ready, _, _ = select.select([self.writer.stdout], [], [], 0)
            if ready:
                self.wait()

    def wait(self) -> None:
        """Until nothing is under way: the state as it was staged is on the disk. Waits, within its patience, for a disk
        that has no room or cannot be written; a writer that was killed is replaced. Raises `SaveError`."""
        paused_at, killed = 0.0, 0
        while self.under_way and self.writer is not None and self.writer.stdout is not None:
            line = self.writer.stdout.readline()
            if not line and killed < WRITERS and self.staging is not None:
                killed += 1
                print("the writer of checkpoints was killed; another one takes over", flush=True)
                self.writer.communicate()
                self.writer = _start_writer(self.staging.fd)
                self._give_order()
                continue
            answer: dict[str, Any] = json.loads(line) if line else {"error": "its writers are killed"}
            error = SaveError(answer.get("error", ""), answer.get("file", ""))
            if "error" not in answer:
                self.under_way = ""
                if paused_at:
                    self.tell("")
                return
            now = time.monotonic()
            paused_at = paused_at or now
            if answer.get("errno") not in PASSING or now - paused_at > self.patience or self.attempt.stop.exists():
                self.under_way = ""
                raise error
            self.tell(str(error))
            time.sleep(min(SECONDS_BETWEEN_TRIES, self.patience))
            self._give_order()

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Gives a save that is under way a little time to come to an end, good or bad: for a rank that has failed, and
        takes its writer along."""
        if self.under_way and self.writer is not None and self.writer.stdout is not None:
            select.select([self.writer.stdout], [], [], seconds)

    def close(self) -> None:
        """Waits, ends the writer, and gives the shared memory back. Raises `SaveError`."""
        try:
            self.wait()
        finally:
            if self.writer is not None and self.staging is not None:
                self.writer.communicate()  # which closes its input: there are no more orders
                self.staging.close()
                self.writer = self.staging = None

    def _staging(self) -> Staging:
        """The shared memory, with a writer that sees it."""
        if self.staging is None or self.writer is None:
            self.staging = Staging(self.device)
            self.writer = _start_writer(self.staging.fd)
        return self.staging

    def _give_order(self) -> None:
        assert self.writer is not None and self.writer.stdin is not None
        with suppress(BrokenPipeError):  # told by the missing answer
            self.writer.stdin.write(self.under_way)
            self.writer.stdin.flush()

    def newest(self, warn: Any = print) -> Checkpoint | None:
        """The newest checkpoint whose files are as they were written; None where there is none. A damaged one is
        renamed to `quarantined-...`, and `warn` gets the reason. Raises `RunError` for one of a newer format."""
        for path in (checkpoint_path(self.run, step) for step in saved_steps(self.run)):
            if (written := written_format(path)) > FORMAT:
                raise RunError(Fault(what="a newer version of Drumbeat has written the checkpoints", where=str(path),
                                     given=f"format {written}; this version reads {FORMAT}",
                                     remedy="Go on with that version."))
            reason = damage(path)
            if not reason:
                return _read(path)
            warn(f"checkpoint {path.name} is damaged ({reason}); looking for an older one")
            quarantined = path.with_name(f"{QUARANTINED}{path.name}")
            shutil.rmtree(quarantined, ignore_errors=True)
            path.rename(quarantined)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step that somebody has found good."""
        return _read(checkpoint_path(self.run, step))

    def weights(self, step: int) -> dict[str, Tensor]:
        """Parameters and buffers as saved at a step. Raises `RunError` where that checkpoint is gone or damaged."""
        self.wait()
        path = checkpoint_path(self.run, step)
        if reason := damage(path):
            raise RunError(Fault(what=f"the weights of step {step} cannot be used: {reason}", where=str(path)))
        return load_file(path / "model.safetensors")


def _files(model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> Files:
    return {"model.safetensors": model, "optimizer.safetensors": optimizer}


def _start_writer(memory: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "drumbeat.trainers.checkpoints.writer", str(memory)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[memory],
                            env=os.environ | environment("", []))


def _read(path: Path) -> Checkpoint:
    return Checkpoint(path, CheckpointState.require(path / "state.json"))
