"""Runs that have ended and been evaluated, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.trainers.inference.samples import NAME, KeptSamples, write_samples
from tests.runs import write_job, write_plan, write_state
from tests.tiny import write_config


def made_run(folder: Path, number: int, *changes: str, accuracy: float = 0.5, name: str = "tiny") -> RunDir:
    """A finished run of the small experiment with these changes to its config, below `folder`/runs."""
    run = RunDir(folder / "runs" / name / f"2026010{number}-100000-aaaa{number}")
    write_plan(run)
    run.config.write_text(load(write_config(folder), changes).as_yaml())
    write_job(run, id="4711", host="here")
    write_state(run, "finished")
    Result(steps=20, samples_seen=400, overshoot=0, best={"step": 20, "phase": "head", "loss": 1 - accuracy,
                                                          "accuracy": accuracy}).write(run.result)
    return run


def samples(n: int = 40, *, skill: float = 0.0, groups: bool = False, seed: int = 1, **changes: Any) -> KeptSamples:
    """Two classes, of which a model with `skill` guesses more often the right one. The targets are the same for all
    models, and what makes a sample hard as well."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    targets = shared.integers(0, 2, n)
    logits = (2 * targets - 1) * skill + shared.normal(size=n) + 0.3 * own.normal(size=n)
    probabilities = np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], 1).astype(np.float32)
    arrays = {"targets": targets, "predictions": probabilities.argmax(1), "probabilities": probabilities,
              "losses": -np.log(probabilities[np.arange(n), targets])}
    kept: dict[str, Any] = {"kind": "classification", "names": [f"person{number // 4}_{number}.png" for number in
                                                                range(n)], "outputs": ["bottom", "top"],
                            "groups": [f"{number // 4}" for number in range(n)] if groups else None, "arrays": arrays}
    return KeptSamples(**kept | changes)


def write_evaluation(run: RunDir, kept: KeptSamples, split: str = "test", step: int = 20) -> None:
    """What `drumbeat evaluate` keeps of a set."""
    folder = run.path / "evaluation" / f"{split}-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(kept, folder / NAME)


def reordered(kept: KeptSamples, order: Sequence[int]) -> KeptSamples:
    return kept.taken(np.array(order))
