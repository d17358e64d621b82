"""What a run has learnt: the weights of one of its checkpoints, in the model that its config describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import CheckpointState, Manifest
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage, find_checkpoint
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import place_model
from drumbeat.trainers.checkpoints.state import load_weights
from drumbeat.trainers.facts import with_facts
from drumbeat.trainers.phase_runner import prefer_determinism, set_precision


def settle(run: RunDir) -> None:
    """Threads and kernels as in training, as far as this machine has the cores: the last digits depend on both."""
    config, plan = read(run.config), JobPlan.read(run.plan)
    planned = plan.topology.cpus_per_rank if plan else 1
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    prefer_determinism(deterministic=config.deterministic, threads=min(planned, len(os.sched_getaffinity(0))))
    set_precision(config.precision)


def good_checkpoint(run: RunDir, which: str | None) -> tuple[Path, str]:
    """The checkpoint that `which` names (`configs/preconditions.py`), and what it is, in words. Raises `RunError`
    where there is no such checkpoint, or where it is damaged."""
    path = find_checkpoint(run, which)
    if reason := damage(path):
        raise RunError(Fault(what=f"the checkpoint is damaged: {reason}", where=str(path),
                             remedy=f"See: drumbeat checkpoints {run.id}"))
    step = Manifest.require(path / "manifest.json").step
    name = which or ("best" if (run.checkpoints / "best").exists() else "last")
    return path, f"step {step:,}" if name.isdecimal() else f"{name} weights, of step {step:,}"


def remembered(path: Path) -> dict[str, Any]:
    """What a checkpoint remembers of its training set: its "classes" or "value_names", its "facts"."""
    return CheckpointState.require(path / "state.json").progress.data


def load_model(config: Config, path: Path, device: torch.device) -> nn.Module:
    """The model with a checkpoint's weights, in evaluation mode. Raises `RunError` where they are another model's, and
    `PreflightError` where the model cannot be built."""
    model = place_model(with_facts(config, remembered(path).get("facts", {})), device)
    load_weights(model, load_file(path / "model.safetensors"), path, str(config.model.get("_target_")))
    return model.eval()
