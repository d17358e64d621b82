"""The preflight check: everything that needs torch is checked before a run is submitted, where there is internet
access.

    python -m drumbeat.trainers.commands.preflight < {config, topology, backend, run}

prints one JSON object: facts or faults. `run` is the run's folder, which has checkpoints if the run resumes.

It checks that torch can use the GPUs, that targets can be imported, that the model can be built on the meta device,
that the weights of `initialize` can be read and fit it, that the data exists, that the phases fit the model, that a few
samples go through model and loss, that the schedules last, and that the run can be rehearsed on them. It reports all
faults at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import needs_data, with_hint
from drumbeat.configs.reference import reference_faults
from drumbeat.configs.schema import Config
from drumbeat.configs.yaml_text import inline
from drumbeat.data.loader import Samples, one_thread
from drumbeat.trainers.build import (
    Sets,
    build_batch_sampler,
    build_batch_transforms,
    build_mixing,
    build_model,
    build_sets,
    build_stream,
    build_task,
    loader_workers,
)
from drumbeat.trainers.build_optimizer import build_optimizer, build_scheduler
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.commands.batch_checks import batch_faults, mask_fault
from drumbeat.trainers.commands.beside_checks import beside_faults
from drumbeat.trainers.commands.norm_checks import check_norms, norm_notes
from drumbeat.trainers.commands.open_files import opened_since, positions, shared_files
from drumbeat.trainers.commands.optimizer_checks import check_average, check_optimizer, check_rates, rates_of
from drumbeat.trainers.commands.rehearsal import rehearse
from drumbeat.trainers.commands.rehearsed_resume import newest_checkpoint, progress_with, rehearse_resume
from drumbeat.trainers.commands.rehearsed_schedule import rehearse_schedule
from drumbeat.trainers.commands.smoke_test import SMALL, smoke_test
from drumbeat.trainers.commands.virtual_rank_checks import virtual_rank_faults
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.freezing import frozen_parts, trainable
from drumbeat.trainers.gpu_check import find_gpus, gpu_faults
from drumbeat.trainers.metrics import build_metrics, check_monitor
from drumbeat.trainers.model_and_task import with_task
from drumbeat.trainers.position import build_schedules, check_position, with_phase_values
from drumbeat.trainers.recompute import recomputed
from drumbeat.trainers.replica import compiled
from drumbeat.trainers.set_notes import notes_of
from drumbeat.trainers.starting_weights import check_fitting
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.versions import preflight_versions

FP16_ON_CPU = "fp16 is for GPUs without bf16; on the CPU, bf16 takes as little memory and needs no scale for the loss"


def preflight(config: Config, *, world_size: int = 1, device: str = "cpu", checkpoint: Checkpoint | None = None
              ) -> dict[str, Any]:
    """Facts about the run: samples, steps of each phase, parameters. `checkpoint` is that which it resumes from. Raises
    one `PreflightError` with all faults."""
    faults: list[Fault] = []

    def attempt(build: Callable[[], Any]) -> Any:
        try:
            return build()
        except PreflightError as error:
            faults.extend(error.faults)
            return None

    faults += beside_faults(config)
    before = positions()
    sets: Sets | None = attempt(lambda: build_sets(config))
    opened = opened_since(before)
    filled: Config | None = None if sets is None and needs_data(config.model) else attempt(
        lambda: with_facts(config, facts_of(sets.train) if sets else {}))
    model = attempt(lambda: _model_on_meta(filled)) if filled else None
    built: dict[str, Any] = {}
    attempt(lambda: build_batch_transforms(config))
    attempt(lambda: compiled(nn.Identity(), config.compile))
    if config.compile and config.recompute:
        faults.append(Fault(what="recompute and compile do not work together", where="recompute",
                            given=inline(config.recompute), remedy="torch.compile decides itself what to compute "
                            "again; remove one of them."))
    task: Task | None = attempt(lambda: build_task(config, sets))
    if task is not None:
        faults += check_monitor(config, task)
        attempt(lambda: build_metrics(config, task))
        faults += reference_faults(config, task.metric_names)
    progress = progress_with(config, checkpoint) if checkpoint else None
    tables = build_schedules(config, len(sets.train), progress) if sets is not None and len(sets.train) else []
    numbers = attempt(lambda: with_phase_values(filled or config, tables))
    if model is not None and numbers:
        trained = with_task(model, task)
        attempt(lambda: recomputed(trained, config.recompute))
        built = {name: attempt(partial(_check_phase, numbers, name, trained, world_size, device))
                 for name in config.phases}
    faults += virtual_rank_faults(config, task, model)
    if sets is not None:
        faults += _check_sets(filled or config, sets)
        if task is not None and task.kind == "classification" and len(sets.classes) == 1:
            faults.append(Fault(what=f"the training set has one class: {sets.classes[0]}", where="data.train",
                                given=inline(config.data.train), remedy="A model that always answers it is always "
                                "right. Is the root one folder too high or too low?"))
        if len(sets.train):
            attempt(lambda: _check_order(config, sets.train))
    taken = attempt(lambda: check_fitting(config.initialize, model)) if model is not None and not checkpoint else ""
    notes = [*([] if sets is None else notes_of(sets)), *filter(None, [taken]),
             *([] if model is None else norm_notes(config, model)),
             *[FP16_ON_CPU] * (config.precision == "fp16" and device == "cpu")]
    notes += [f"the budget of {config.budget.steps:,} steps ends the run before phase {name}"
              for name in [*config.phases][len(tables):] if tables and config.budget.steps is not None]
    if progress and tables:
        attempt(lambda: check_position(config, tables, progress))
    if not faults:
        phases = [(name, phase) for name, phase in config.phases.items() if phase is not None]
        for (name, phase), schedule in zip(phases, tables, strict=False):
            scheduler, optimizer = built[name]
            note = attempt(partial(rehearse_schedule, scheduler, optimizer, schedule, phase.scheduler_every,
                                   f"phases.{name}.scheduler"))
            notes += [note] if note and config.limit_batches is None else []  # a trial is shorter than its schedule
    if not faults and sets is not None and model is not None and task is not None:
        tried = smoke_test(filled or config, sets, model, task, notes)
        if isinstance(tried, Fault):
            faults.append(tried)
        elif wrong := [*batch_faults(config, task, tried, config.virtual_ranks or world_size),
                       *filter(None, [mask_fault(sets.train)])]:
            faults += wrong
        else:
            with one_thread():  # threads that wait for each other are slow on a busy login node
                parameters = sum(parameter.numel() for parameter in model.parameters())
                long_enough = with_phase_values(filled or config, tables, least=2)  # which it takes
                rehearsed = rehearse(long_enough, sets, task, tried, world_size=world_size, parameters=parameters)
            workers = loader_workers(config, threads=config.launch.cpus_per_rank or 2, debug=False)
            shared_faults, shared_notes = shared_files(opened) if workers else ([], [])
            faults, notes = [*rehearsed.faults, *shared_faults], [*notes, *rehearsed.notes, *shared_notes]
            if checkpoint and not faults and parameters <= SMALL:
                attempt(lambda: rehearse_resume(filled or config, task, tried, checkpoint, len(sets.train)))
    if faults or sets is None or model is None:
        raise PreflightError(*with_hint(faults, config.data.download_hint))
    return {
        "samples": {name: len(samples) for name in ("train", "validation", "test")
                    if (samples := getattr(sets, name)) is not None},
        "steps": {name: table.steps for name, table in zip(config.phases, tables, strict=False)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_bytes": sum(value.nbytes for value in model.state_dict().values()),
        "classes": sets.classes,
        "notes": notes,
    }


def _model_on_meta(config: Config) -> nn.Module:
    """The model without memory for its weights, which checks its arguments and is fast; in memory if its constructor
    reads values."""
    try:
        with torch.device("meta"):
            model = build_model(config)
    except PreflightError:
        model = build_model(config)
    if lazy := [name for name, value in model.state_dict(keep_vars=True).items() if is_lazy(value)]:
        raise PreflightError(Fault(what="the model has parameters whose shape its first batch decides",
                                   where="model", given=", ".join(lazy[:6]),
                                   remedy="Give its lazy modules (LazyLinear) their number of inputs."))
    return model


def _check_phase(config: Config, name: str, model: nn.Module, world_size: int, device: str
                 ) -> tuple[Any, torch.optim.Optimizer]:
    """Raises `PreflightError` if the phase cannot train the model. Returns its scheduler and its optimizer, for
    parameters without memory."""
    phase = config.phases[name]
    assert phase is not None
    frozen = frozen_parts(model, phase, name)
    free = trainable(model)
    trained = [parameter for parameter in free if parameter not in frozen.parameters]
    if not trained:
        raise PreflightError(
            Fault(what="the phase freezes all parameters that the model does not freeze itself",
                  where=f"phases.{name}.freeze", given=inline(phase.freeze)) if free else
            Fault(what="the model has nothing to train: no parameter has requires_grad", where="model",
                  given=str(config.model.get("_target_")), remedy="Leave something unfrozen, a new head for example."))
    if phase.start_from == "best" and not config.data.validation:
        raise PreflightError(Fault(what="there are no best weights without a validation set",
                                   where=f"phases.{name}.start_from", given="start_from: best",
                                   remedy="Set data.validation, or start_from: last."))
    ends = next((key for key in ("patience", "target") if getattr(phase, key) is not None), "")
    if ends and not config.data.validation:
        raise PreflightError(Fault(what="a phase cannot end by its metric without a validation set",
                                   where=f"phases.{name}.{ends}", given=f"{ends}: {getattr(phase, ends):g}",
                                   remedy=f"Set data.validation, or {ends}: null."))
    check_norms(config, name, model, {inner for module in frozen.modules for inner in module.modules()}, world_size,
                device)
    optimizer = build_optimizer(phase, name, model, trained)
    check_optimizer(optimizer, name)
    check_average(phase, name, model, optimizer)
    rates = rates_of(optimizer)
    scheduler = build_scheduler(phase, name, optimizer)
    _check_plateau(config, scheduler, name)
    check_rates(rates, rates_of(optimizer), scheduler, name)
    return scheduler, optimizer


def _check_plateau(config: Config, scheduler: Any, name: str) -> None:
    """Raises `PreflightError` if a scheduler that watches the monitored metric has none, or watches it for the opposite
    of what makes weights the best."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        return
    where, evaluation = f"phases.{name}.scheduler", config.evaluation
    if not config.data.validation:
        raise PreflightError(Fault(what="ReduceLROnPlateau needs a validation metric, and there is no validation set",
                                   where=where, remedy="Set data.validation, or use another scheduler."))
    if scheduler.mode != evaluation.mode:
        raise PreflightError(Fault(
            what=f"ReduceLROnPlateau would lower the learning rate while {evaluation.monitor} improves", where=where,
            given=f"mode: {scheduler.mode}, but evaluation.mode: {evaluation.mode}",
            remedy=f"Give it mode: {evaluation.mode}."))


def _check_order(config: Config, samples: Samples) -> None:
    """Raises `PreflightError` if the order of samples or their mixing cannot be computed for this set."""
    build_mixing(config)
    stream = build_stream(config, samples, 0)
    schedule, *_ = build_schedules(config, len(samples))
    build_batch_sampler(config, samples, schedule, stream, rank=0, world_size=1, first=0)


def _check_sets(config: Config, sets: Sets) -> list[Fault]:
    faults = [Fault(what=f"data.{name} is empty", where=f"data.{name}", given=inline(getattr(config.data, name)))
              for name in ("train", "validation", "test")
              if (samples := getattr(sets, name)) is not None and not len(samples)]
    for name in ("validation", "test"):
        classes = list(getattr(getattr(sets, name), "classes", []))
        if classes and sets.classes and classes != sets.classes:
            only = [f"only in data.{where}: {', '.join(extra)}" for where, extra in (
                ("train", [c for c in sets.classes if c not in classes]),
                (name, [c for c in classes if c not in sets.classes])) if extra]
            faults.append(Fault(what=f"the classes of data.{name} differ from those of data.train",
                                where=f"data.{name}",
                                given="; ".join(only), remedy="Use the same class folders, or the same `classes`."))
    outputs = config.model.get("classes")
    fewest = 1 if len(sets.classes) == 2 else len(sets.classes)  # one output suffices for two classes
    if isinstance(outputs, int) and outputs < fewest:
        faults.append(Fault(what=f"the model has {outputs} classes, the data has {len(sets.classes)}",
                            where="model.classes", given=", ".join(sets.classes),
                            remedy=f"Set model.classes={len(sets.classes)}."))
    return faults


def main() -> None:
    """Reads the resolved config from standard input, and writes nothing but the answer to standard output."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that the output of targets does not mix with the answer
    warnings.simplefilter("ignore")
    question = json.load(sys.stdin)
    config = build_config([Layer(values=question["config"], origin="config")])
    topology, faults = question["topology"], []
    cuda, here = topology["device"] == "cuda", question["backend"] in ("local", "debug")
    found = find_gpus() if cuda and here else None
    if found is not None:
        faults += gpu_faults(found, os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    try:
        facts = preflight(config, world_size=topology["nodes"] * topology["ranks_per_node"],
                          device=topology["device"], checkpoint=newest_checkpoint(Path(question["run"])))
        facts["versions"] = preflight_versions(config.precision, cuda=cuda, here=here,
                                               gpus=found.devices if found else ()).as_json()
    except PreflightError as error:
        faults += error.faults
    json.dump({"faults": [dataclasses.asdict(fault) for fault in faults]} if faults else facts, answer)
    answer.close()


if __name__ == "__main__":
    main()
