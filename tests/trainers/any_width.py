"""Trains runs on several ranks without a launcher, and compares them: for the tests of virtual ranks, and for the table
in docs/determinism.md.

    python -m tests.trainers.any_width [RANKS ...]     all shipped configs, on small data, on 1 and 2 ranks by default
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.load import ROOT, load
from drumbeat.configs.run.checkpoint_records import CheckpointState
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.commands.compare import differences
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.kernels import prefer_determinism
from drumbeat.trainers.worker import build, finish
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.workloads import SMALL, write_sets

VIRTUAL = 4
"""The virtual ranks of the shipped configs, if a batch has as many samples."""


def write(run: RunDir, config: Path, changes: Sequence[str]) -> None:
    """Makes the folder of a run, with its resolved config."""
    run.path.mkdir(parents=True)
    run.config.write_text(load(config, [*changes, "launch.gpus=0"]).as_yaml())


def train(run: RunDir, world: World) -> None:
    """Trains a run on this rank, as its worker does, in the run's next attempt."""
    prefer_determinism(deterministic=True, threads=1)
    attempt = run.claim_attempt() if world.is_main else None
    world.share(None)  # so that the other ranks see the attempt
    attempt = attempt or run.newest_attempt()
    assert attempt is not None
    config = load(run.config, []).config
    sets = build_sets(config)
    training = build(run, attempt, with_facts(config, facts_of(sets.train)), sets, world, threads=1, debug=False)
    finish(run, attempt, config, training, training.run(), None)


def unequal(run: RunDir, other: RunDir) -> list[str]:
    """What differs between two runs: results, curves, and the training state of their last checkpoints."""
    return differences(run, other, exact=True) + (
        [] if _state(run) == _state(other) else ["the state of the last checkpoint"])


def _state(run: RunDir) -> dict[str, Any]:
    """The plain part of the newest checkpoint's training state; its ledger by phase, because when it was saved before,
    which divides it, depends on the time."""
    found = CheckpointState.require(max(run.checkpoints.glob("step-*/state.json")))
    ledger: dict[int, list[int]] = {}
    for one in found.progress.ledger:
        before = ledger.get(one.phase, [0, 0, 0])
        values = one.steps, one.samples, int(one.digest, 16)
        ledger[one.phase] = [(old + new) % 2**64 for old, new in zip(before, values, strict=True)]
    return {"optimizer": found.optimizer, "scheduler": found.scheduler, "quanta": found.quanta, "ledger": ledger}


def train_shipped(world: World, folder: str) -> None:
    """Trains the shipped configs, and notes the errors of this rank."""
    os.chdir(folder)
    for name, changes in SMALL.items():
        run, file = RunDir(Path(folder, name, str(world.size))), ROOT / "configs" / f"{name}.yaml"
        virtual = min(VIRTUAL, load(file, changes).config.batch_size)
        if world.size <= virtual:
            if world.is_main:
                write(run, file, [*changes, f"virtual_ranks={virtual}", "tracking.images=2", "tracking.every_steps=1"])
            world.share(None)
            train(run, world)


def main(ranks: Sequence[int]) -> None:
    """Prints a row for each config: whether its runs are equal."""
    from tests.trainers.any_width import train_shipped  # not of `__main__`, which the ranks cannot import

    with tempfile.TemporaryDirectory() as folder:
        write_sets(Path(folder))
        for size in ranks:
            on_ranks(size, train_shipped, folder)
        for name in SMALL:
            first, *others = (RunDir(Path(folder, name, str(size))) for size in ranks)
            print(json.dumps({"config": name, "steps": json.loads(first.result.read_text())["steps"],
                              **{other.path.name: unequal(other, first) or "equal" for other in others
                                 if other.path.exists()}}), flush=True)


if __name__ == "__main__":
    main([*map(int, sys.argv[1:])] or [1, 2])
