"""The weights that a new run starts from (`initialize`): finds them, matches them with the model, loads and records
them.

Rank 0 reads the file and broadcasts what the model takes: many ranks that read one file of a shared disk wait for each
other. A run that has a checkpoint needs none of this, so the file may be gone.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from drumbeat.configs.errors import Fault, PreflightError, UserError, nearest
from drumbeat.configs.initialize import Initialize, is_named
from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import damage, find_checkpoint
from drumbeat.configs.run.rank_records import StartingWeights
from drumbeat.models.hub import fetch
from drumbeat.models.pretrained import Match, best_match, check, describe, read_weights, renamed, take
from drumbeat.trainers.checkpoints.extra_state import is_extra_state
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.model_and_task import without_task
from drumbeat.trainers.patterns import within
from drumbeat.trainers.world import World

ONLY_ON_NODES = ("The check runs on the machine where the command is typed. If only the nodes have it, begin the path "
                 "with a variable that is set there: $SCRATCH/FILE")


@dataclass(frozen=True)
class Fitting:
    """What a model takes of some weights."""

    found: Mapping[str, Tensor]
    """The weights by their names in the file."""
    match: Match
    table: str
    """What is taken, left out and new, as text of a few lines."""


def fitting(section: Initialize, model: nn.Module) -> Fitting:
    """Reads the weights, and matches them with the model, which may be on the meta device. Raises `PreflightError` if
    they cannot be read or do not fit."""
    assert section.weights is not None
    file = _file(section.weights)
    try:
        found = _weights(renamed(read_weights(file), section.rename))
        every = _weights(model.state_dict(keep_vars=True))
        expected = _expected(section, model, every)
        match = best_match(expected, found)
        check(match, expected, found, strict=section.strict)
    except (FileNotFoundError, ValueError) as error:
        what, _, more = str(error).partition("\n")
        missing = isinstance(error, FileNotFoundError)
        raise PreflightError(Fault(what=what, where="initialize.weights", given=more or section.weights,
                                   remedy=ONLY_ON_NODES if missing else _remedy(what))) from error
    tied = {id(every[name]) for name in match.taken}
    match = replace(match, new=[*match.new, *(name for name in every
                                              if name not in expected and id(every[name]) not in tied)])
    source = section.weights if is_named(section.weights) else short(file)
    return Fitting(found, match, describe(match, every, found, source))


def check_fitting(section: Initialize, model: nn.Module) -> str:
    """The table of what the model takes, or a note that this machine cannot tell. Raises `PreflightError`."""
    if section.weights is None:
        return ""
    if section.weights.startswith("$") and not Path(os.path.expandvars(section.weights)).exists():
        return (f"the weights {section.weights} are not on {socket.gethostname()}, so whether they fit is known when "
                "the run starts")
    return fitting(section, model).table


def initialize(run: RunDir, section: Initialize, model: nn.Module, world: World) -> None:
    """Gives a new model its weights, on all ranks; rank 0 prints and records what it took. Raises `PreflightError`, on
    rank 0, if they cannot be read or do not fit, or are not those that the parent of a fork has started from."""
    if section.weights is None:
        return
    if world.is_main:
        fits = fitting(section, model)
        sha256, fork = weights_sha256(fits.found), Fork.read(run.fork)
        before = StartingWeights.read(run.starting_weights) if fork else None
        if fork and before and before.sha256 != sha256:
            raise PreflightError(Fault(what="the fork would start from other weights than its parent",
                                       where="initialize.weights", given=section.weights,
                                       remedy=f"The file has changed since run {fork.parent} started. Restore it."))
        take(model, fits.match, fits.found)
        print(fits.table, flush=True)
        StartingWeights(weights=section.weights, sha256=sha256, table=fits.table,
                        taken=dict(fits.match.taken), left=tuple(fits.match.left), new=tuple(fits.match.new)
                        ).write(run.starting_weights)
    world.broadcast_model(model)


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights and buffers in a state dict. Extra state is none: a new run has its own, and what it is says
    nothing about whether the weights beside it fit."""
    return {name: value for name, value in without_task(state).items() if not is_extra_state(name)}


def _expected(section: Initialize, model: nn.Module, every: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model's tensors that may get weights. Raises `PreflightError` for a pattern of `only` that fits
    none."""
    for pattern in section.only:
        if not any(within(name, [pattern]) for name in every):
            close = nearest(pattern, [*(name for name, _ in model.named_modules() if name), *every])
            tops = ", ".join(name for name, _ in model.named_children())
            raise PreflightError(Fault(what=f"the model has nothing that fits '{pattern}'", where="initialize.only",
                                       given=pattern, remedy=close if close.startswith("Did") else
                                       f"Its modules are {tops} and their submodules."))
    return {name: value for name, value in every.items() if not section.only or within(name, section.only)}


def _file(weights: str) -> Path:
    """The file with the weights; of a run or of a checkpoint, whose digests are verified. Raises `PreflightError`."""
    try:
        if is_named(weights):
            return fetch(weights)
        path = Path(os.path.expandvars(weights))
        if unset := re.match(r"\$\{?(\w+)", str(path)):
            raise PreflightError(Fault(what=f"the variable {unset[1]} is not set on {socket.gethostname()}",
                                       where="initialize.weights", given=weights, remedy="Set it, or name a file."))
        if not path.is_dir():
            return path
        own, checkpoint = path / "model.safetensors", path
        if own.is_file() and not (path / "manifest.json").exists():
            return own  # as transformers saves a model
        if not own.is_file():
            checkpoint = find_checkpoint(RunDir(path), None)
        if reason := damage(checkpoint):
            raise PreflightError(Fault(what=f"the checkpoint is corrupted: {reason}", where="initialize.weights",
                                       given=short(checkpoint), remedy="Name another one: RUN/checkpoints/step-NUMBER"))
        return checkpoint / "model.safetensors"
    except PreflightError:
        raise
    except UserError as error:
        raise PreflightError(Fault(what=f"the run has no weights: {error.faults[0].what}", where="initialize.weights",
                                   given=weights, remedy=error.faults[0].remedy)) from error
    except (OSError, ValueError) as error:
        what, _, more = str(error).partition("\n")
        raise PreflightError(Fault(what=what, where="initialize.weights", given=weights, remedy=more)) from error


def _remedy(what: str) -> str:
    """What to do about weights that cannot be read or do not fit."""
    if "do not" in what or "not all" in what or "none of" in what:
        return ("Name what differs: initialize.rename={OLD: NEW}; load a part: initialize.only=[backbone]; or leave "
                "the rest random: initialize.strict=false")
    return ""
