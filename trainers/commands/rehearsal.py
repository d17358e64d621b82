"""Rehearses a run on a few samples before it is submitted: a step of each phase, an evaluation, a save, a load, and one
more step of the run that was not stopped and of the one that resumed.

It uses what the run uses: `PhaseRunner`, `Evaluator`, the layout and the records of checkpoints. It runs on the CPU, in
memory, and does not see what a GPU, the rest of the samples or a larger batch would show. If the run has several ranks,
a step and an evaluation are rehearsed on two.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from drumbeat.configs.errors import Fault, PreflightError, RunError
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch
from drumbeat.data.structure import rows, uncut
from drumbeat.trainers.build import Sets, build_forward, build_model
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.checkpoints.staging import NAMES, Staging
from drumbeat.trainers.checkpoints.state import load_weights
from drumbeat.trainers.commands.rehearsed_evaluation import few_of, rehearse_evaluation
from drumbeat.trainers.commands.rehearsed_gradients import SHOWN, listed, without_gradient
from drumbeat.trainers.commands.rehearsed_ranks import NO_ANSWER, on_two_ranks
from drumbeat.trainers.commands.smoke_test import PLACE_ERROR, SMALL, error_place, error_text, float64_remedy
from drumbeat.trainers.contact_sheet import CPU
from drumbeat.trainers.freezing import trainable
from drumbeat.trainers.guards import compare_ranks
from drumbeat.trainers.lost_state import differences, model_differences, same_bits
from drumbeat.trainers.model_and_task import ModelAndTask, with_task
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.world import World

FEW = 2
"""The number of training samples in a step."""

@dataclass
class Rehearsal:
    """What a rehearsal found."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class InMemory(Checkpoint):
    """A checkpoint that is not on disk, but still in the staging memory."""

    tensors: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)

    def model(self) -> dict[str, Tensor]:
        return self.tensors["model.safetensors"]

    def optimizer(self) -> dict[str, Tensor]:
        return self.tensors["optimizer.safetensors"]


class _StopError(Exception):
    """Ends a rehearsal; holds the fault, or the reason why it cannot go on here."""

    def __init__(self, reason: Fault | str) -> None:
        super().__init__(reason)
        self.reason = reason


def rehearse(config: Config, sets: Sets, task: Task, batch: Batch, *, world_size: int, parameters: int) -> Rehearsal:
    """Rehearses the run on `batch`, which is a few training samples. `config` includes the facts of the data, and
    `parameters` is the number of the model's parameters."""
    found = Rehearsal()
    if parameters > SMALL:
        found.notes.append(f"the model has more than {SMALL:,} parameters, so its steps, evaluation and checkpoints "
                           "are not rehearsed")
        return found
    if config.compile:
        found.notes.append("the rehearsal compiles nothing, so what torch.compile makes of the model is not checked")
    few, samples = with_few(config, batch)
    try:
        live = with_task(build_model(few), task), task
        resumed = copy.deepcopy(live)
        parameters_of = [trainable(model) for model, _ in (live, resumed)]
        found.faults += _unsavable(live[0])
        for number, name in enumerate(config.phases):
            if not found.faults:
                first, second = (
                    build_phase_runner(few, number, model, of, CPU, build_forward(few, CPU.device), trained)
                    for (model, of), trained in zip((live, resumed), parameters_of, strict=True))
                found.faults += _rehearse_phase(few, f"phases.{name}", first, second, samples, world_size=world_size,
                                                notes=found.notes, last=number == len(config.phases) - 1)
        if not found.faults:
            found.notes += _evaluate(few, sets, *live)
        if not found.faults and world_size > 1:
            _rehearse_ranks(few, sets, *live, samples)
    except _StopError as error:
        (found.notes if isinstance(error.reason, str) else found.faults).append(error.reason)  # type: ignore[arg-type]
    return found


def with_few(config: Config, batch: Batch) -> tuple[Config, Batch]:
    """The config and the batch of a step with few samples: all of the batch if it cannot be cut. Nothing is
    compiled, and fp16, which overflows in the first steps until its scale fits, is fp32."""
    size = len(batch.positions)
    precision = "fp32" if config.precision == "fp16" else config.precision
    micro = 1 if config.micro_batch_size == 1 else None
    virtual = None if config.virtual_ranks is None else 1
    return (dataclasses.replace(config, precision=precision, compile={}, micro_batch_size=micro, virtual_ranks=virtual),
            batch if uncut(batch, size) else Batch(*(rows(part, range(FEW), size) for part in batch)))


def _rehearse_phase(config: Config, where: str, live: PhaseRunner, resumed: PhaseRunner, batch: Batch, *,
                    world_size: int, notes: list[str], last: bool) -> list[Fault]:
    """A step of one phase, a save, a load into the runner of a resumed run, and another step of both: in the last phase
    with its own gradients, to see whether the model has lost something, otherwise with those of the first step."""
    with _explained("the first step cannot be taken", f"{where}.optimizer"):
        without = [_backward(live, batch, 0)]
        gradients = [] if last else [None if one.grad is None else one.grad.clone() for one in live.trained]
        if not live.settle(live.update()) and config.on_nonfinite == "stop":
            return [Fault(what="the loss or the gradient of the first samples is NaN or Inf", where=where,
                          remedy="Look at the loss, the inputs and the initial weights.")]
    with _explained("the state cannot be saved", where):
        checkpoint = _saved(live, with_model=last)
    with _explained("the saved state cannot be loaded", where):
        load_weights(resumed.model, checkpoint.model(), checkpoint.path, str(config.model.get("_target_")))
        resumed.load(checkpoint)
    with _explained("the step after a resume cannot be taken", f"{where}.optimizer"):
        if last:
            without.append(_backward(live, batch, 1))
            _backward(resumed, batch, 1)
            if faults := _compare_gradients(live, resumed, batch, notes):
                return faults
        else:
            resumed.buffers.keep()
            _give(gradients, live, resumed)
        for runner in (live, resumed):
            runner.settle(runner.update())
    one, other = (SimpleNamespace(optimizer=runner.optimizer, scheduler=runner.scheduler) for runner in (live, resumed))
    return _lost(differences(one, other, "", live.names, resumed.names), where) or without_gradient(
        without, where, world_size, notes,
        find_unused=config.find_unused_parameters or config.virtual_ranks is not None)


def _backward(runner: PhaseRunner, batch: Batch, step: int) -> list[str]:
    """The gradients of a step. Returns the names of the parameters that have none, as the config calls them."""
    runner.train_mode()
    runner.backward([batch], step)
    wrapper = "model." if isinstance(runner.model, ModelAndTask) else ""
    return [runner.names[parameter].removeprefix(wrapper) for parameter in runner.trained if parameter.grad is None]


def _give(gradients: Sequence[Tensor | None], live: PhaseRunner, resumed: PhaseRunner) -> None:
    """Gives the parameters of both these gradients."""
    for mine, yours, gradient in zip(live.trained, resumed.trained, gradients, strict=True):
        mine.grad, yours.grad = gradient, None if gradient is None else gradient.clone()


def _compare_gradients(live: PhaseRunner, resumed: PhaseRunner, batch: Batch, notes: list[str]) -> list[Fault]:
    """What the model or the task computes differently after a resume. Gives both the same gradients."""
    gradients = [one.grad for one in live.trained]
    attributes = [*model_differences(live.model, resumed.model),
                  *differences(live.gradients.loss.task, resumed.gradients.loss.task, "task")]
    if _are_same(gradients, [one.grad for one in resumed.trained]):
        if attributes:
            notes.append("a checkpoint does not hold this state of the model or the task; if it matters, register it "
                         f"as a buffer: {', '.join(attributes[:SHOWN])}")
        before, after = (dict(one.model.named_buffers()) for one in (live, resumed))
        return _lost(differences(before, after, "model"), "model")
    if attributes:
        return [Fault(what="the model computes something else after a resume, because a checkpoint does not hold all "
                      "of its state", where="model", given=listed(attributes), remedy="Register it as a buffer.")]
    live.optimizer.zero_grad(set_to_none=True)
    _backward(live, batch, 1)
    if not _are_same(gradients, [one.grad for one in live.trained]):
        notes.append("two passes with one seed have different gradients: something is random and not seeded by torch, "
                     "so the run cannot be repeated exactly")
    _give(gradients, live, resumed)
    return []


def _are_same(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    return all(one is other is None or (one is not None and other is not None and same_bits(one, other))
               for one, other in zip(some, others, strict=True))


def _saved(runner: PhaseRunner, *, with_model: bool) -> InMemory:
    """A checkpoint as the run writes it: through the staging memory and JSON. The model's tensors are copied only
    `with_model`, because all phases have the same ones."""
    staging = Staging()
    try:
        with runner.averaging.averaged():
            (tensors, values), weights = runner.state(), runner.model.state_dict()
            staging.fill({"optimizer.safetensors": tensors} | ({"model.safetensors": weights} if with_model else {}))
        staged = {"model.safetensors": weights} | staging.views()
    finally:
        staging.close()
    text = json.dumps(CheckpointState(progress=Progress(step=1), **values).as_json())
    return InMemory(path=Path("the rehearsal"), state=CheckpointState.parse(json.loads(text)), tensors=staged)


def _lost(lines: Iterable[str], where: str) -> list[Fault]:
    """The fault of state that differs after a resume."""
    lines = list(lines)
    if not lines:
        return []
    section = lines[0].split("[")[0].split(".")[0].split(":")[0]
    return [Fault(what=f"a checkpoint does not hold all state of the {section}",
                  where=f"{where}.{section}" if section in ("optimizer", "scheduler") else where, given=listed(lines),
                  remedy="Return it from state_dict() and take it back in load_state_dict(); an optimizer may also "
                         "keep it in `state` and `param_groups`.")]


def _evaluate(config: Config, sets: Sets, model: nn.Module, task: Task, world: World = CPU) -> list[str]:
    """Evaluates a few samples of the validation set, or of the test set without one. Returns notes."""
    name = "validation" if sets.validation is not None else "test"
    if getattr(sets, name) is None:
        return []
    few = few_of(getattr(sets, name))
    with _explained(f"{len(few)} samples of data.{name} cannot be evaluated", "task"):
        return rehearse_evaluation(config, sets, few, model, task, name, world)


def _rehearse_ranks(config: Config, sets: Sets, model: nn.Module, task: Task, batch: Batch) -> None:
    """A step of the last phase and an evaluation on two ranks, which both get the same samples."""
    name = list(config.phases)[-1]
    try:
        failed = on_two_ranks(partial(_step_and_evaluate, config, sets, model, task, batch))
    except (OSError, RuntimeError) as error:
        raise _StopError(f"not rehearsed on two ranks: {error_text(error)}") from error
    if failed and (NO_ANSWER.search(failed[0]) or PLACE_ERROR.search(failed[0])):
        raise _StopError(f"not rehearsed on two ranks to the end: {failed[0]}")
    if failed:
        raise _StopError(Fault(what=f"what works on one rank fails on two: {failed[0]}", where=f"phases.{name}",
                               given=failed[1], remedy="Fix it, or train on one rank."))


def _step_and_evaluate(config: Config, sets: Sets, model: nn.Module, task: Task, batch: Batch, world: World) -> None:
    config = dataclasses.replace(config, virtual_ranks=config.virtual_ranks and world.size)
    runner = build_phase_runner(config, len(config.phases) - 1, model, task, world, build_forward(config, world.device))
    gradients = runner.gradients
    runner.batch_size = gradients.batch_size = gradients.loss.batch_size = world.size * len(batch.positions)
    _backward(runner, batch, 0)
    runner.settle(runner.update())
    compare_ranks(model, world, 1)
    _evaluate(config, sets, model, task, world)


def _unsavable(model: nn.Module) -> Iterator[Fault]:
    """Entries of the model's state dict that a checkpoint cannot hold, or that cannot be loaded."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            reason, remedy = f"is not a tensor but of type {type(value).__name__}", "Register its numbers as buffers."
        elif value.dtype not in NAMES or value.layout != torch.strided:
            reason, remedy = f"is a tensor of {value.dtype}, {value.layout}", "Register it as tensors of other types."
        elif any(size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride(), strict=True)):
            reason, remedy = "has items that share memory (torch's expand)", "Register a clone of it."
        else:
            continue
        yield Fault(what=f"a checkpoint cannot hold {name} of the model: it {reason}", where="model",
                    given=str(type(model).__name__), remedy=remedy)


@contextlib.contextmanager
def _explained(what: str, where: str) -> Iterator[None]:
    """Turns an error into a fault; into a note if it is about the device, which is another one in the run."""
    try:
        yield
    except (PreflightError, RunError) as error:
        (first, *_) = error.faults
        raise _StopError(Fault(what=f"{what}: {first.what}", where=where, given=first.given, remedy="")) from error
    except Exception as error:
        if PLACE_ERROR.search(f"{type(error).__name__} {error}"):
            raise _StopError(f"not rehearsed on this CPU: {what}: {error_text(error)}") from error
        remedy = float64_remedy(error)
        raise _StopError(Fault(what=f"{what}: {error_text(error)}", where="data.train" if remedy else where,
                               given=error_place(error), remedy=remedy)) from error
