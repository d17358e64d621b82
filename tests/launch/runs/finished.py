"""Finished runs made by hand, with checkpoints whose digests are right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.run.checkpoint_records import CheckpointState, FileDigest, Manifest, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path
from drumbeat.configs.run.records import Result
from tests.runs import write_heartbeat, write_job, write_plan, write_state
from tests.tiny import CONFIG

BYTES = 1_000_000
"""Of the weights of a checkpoint."""


def finished_run(path: Path, steps: Sequence[int] = (10, 20, 30, 40), *, best: int | None = 20,
                 kept: Sequence[int] = (), attempts: int = 1) -> RunDir:
    """A finished run with a checkpoint of each step, the best one and those that its config keeps, and several
    attempts, each with logs, a step log and a verdict."""
    run = RunDir(path)
    write_plan(run)
    run.config.write_text(CONFIG)
    write_job(run)
    for step in steps:
        write_checkpoint(run, step, Progress(step=step, best={"step": best} if best and best <= step else {},
                                             kept=tuple(one for one in kept if one <= step)))
    (run.checkpoints / "last").symlink_to(checkpoint_path(run, steps[-1]).name)
    if best:
        (run.checkpoints / "best").symlink_to(checkpoint_path(run, best).name)
    for _ in range(attempts):
        attempt = run.claim_attempt()
        for file in (attempt.log(0), attempt.log(1), attempt.node_log(0), attempt.stacks(0), attempt.steps):
            file.write_text("a line\n")
        attempt.verdict.write_text('{"outcome": "failed", "message": "rank 1 was killed"}')
    write_heartbeat(run, step=steps[-1], steps=steps[-1])
    write_state(run, "finished")
    Result(steps=steps[-1], samples_seen=0, overshoot=0, best={"step": best} if best else {}).write(run.result)
    return run


def write_checkpoint(run: RunDir, step: int, progress: Progress) -> None:
    """Writes a checkpoint with made-up weights."""
    path = checkpoint_path(run, step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(step.to_bytes(2, "little") * (BYTES // 2))
    CheckpointState(progress=progress).write(path / "state.json")
    files = {file.name: FileDigest(bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
             for file in path.iterdir()}
    Manifest(format=FORMAT, step=step, attempt=0, files=files).write(path / "manifest.json")


def checkpoints(run: RunDir) -> list[str]:
    """What is in the folder of the checkpoints."""
    return sorted(path.name for path in run.checkpoints.iterdir())
