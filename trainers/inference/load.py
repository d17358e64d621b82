"""Loads a trained model: the weights of a checkpoint in the model that the run's config describes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import CheckpointState, Manifest
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage, find_checkpoint
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import build_task, place_model
from drumbeat.trainers.checkpoints.state import load_weights
from drumbeat.trainers.checkpoints.tensors import read_tensors
from drumbeat.trainers.facts import with_facts
from drumbeat.trainers.kernels import prefer_determinism, set_precision
from drumbeat.trainers.tasks import Task


def use_training_settings(run: RunDir) -> None:
    """Sets threads and kernels as in training, because the last digits depend on both. The number of threads is limited
    to the cores of this machine."""
    config, plan = read(run.config), JobPlan.read(run.plan)
    planned = plan.topology.threads if plan else 1
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    prefer_determinism(deterministic=config.deterministic, threads=min(planned, len(os.sched_getaffinity(0))))
    set_precision(config.precision)


def good_checkpoint(run: RunDir, which: str | None) -> tuple[Path, str]:
    """The checkpoint that `which` names (see `configs/preconditions.py`), and a description of it. Raises `RunError` if
    it does not exist or is corrupted."""
    path = find_checkpoint(run, which)
    if reason := damage(path):
        raise RunError(Fault(what=f"the checkpoint is corrupted: {reason}", where=str(path),
                             remedy=f"List the others: drumbeat checkpoints {run.id}\n"
                                    "The last and the best one of a run that has ended are trained again by: "
                                    f"drumbeat resume {run.id}"))
    step = Manifest.require(path / "manifest.json").step
    name = which or ("best" if (run.checkpoints / "best").exists() else "last")
    return path, f"step {step:,}" if name.isdecimal() else f"{name} checkpoint, step {step:,}"


def training_set(path: Path) -> dict[str, Any]:
    """The description of the training set in a checkpoint: its "classes" or "value_names", and its "facts"."""
    return CheckpointState.require(path / "state.json").progress.data


def task_without_sets(config: Config, path: Path) -> Task:
    """The task, with the names of the classes or values in a checkpoint, for which no set is read. Raises
    `PreflightError`."""
    data = training_set(path)
    names = {"classes": data.get("classes"), "values": data.get("value_names")}
    known = {name: value for name, value in names.items() if value}
    return build_task(dataclasses.replace(config, task=known | config.task), None)


def load_model(config: Config, path: Path, device: torch.device, task: Task) -> nn.Module:
    """The model with the weights of a checkpoint, in evaluation mode; trained parameters of the task get theirs. Raises
    `RunError` if the weights do not fit the model, and `PreflightError` if the model cannot be built."""
    model = place_model(with_facts(config, training_set(path).get("facts", {})), device, task)
    load_weights(model, read_tensors(path / "model.safetensors"), path, str(config.model.get("_target_")))
    return model.eval()
