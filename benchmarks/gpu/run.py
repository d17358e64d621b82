"""Whole runs of the launcher on one GPU: their speed, and how long they take to start and to recover from SIGKILL."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.loops import bare, config, images_per_second
from benchmarks.gpu.scale import Scale
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import Loaded, build_config
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, FirstStep, Result
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import end_processes, processes_of
from drumbeat.launch.drill.drill import Drill

NAME = "gpu_benchmark"


def figures(scale: Scale) -> Iterator[Figure]:
    """An undisturbed run, the same under SIGKILL, and one that need not be deterministic."""
    peers = {choice: bare_loops(scale, deterministic=choice) for choice in (True, False)}
    if scale.on_gpu:
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            began = time.time()
            launcher = drill(home, scale, deterministic=True)
            run = launcher.baseline()
            yield from of_speed(run, peers[True], "deterministic: true", "bare loop, deterministic")
            yield from of_start(run, began)
            yield from of_kills(launcher, run, scale)
            run = drill(home, scale, deterministic=False).baseline()
            yield from of_speed(run, peers[False], "deterministic: false", "bare loop, cudnn.benchmark")
        finally:
            for path in (home / "runs" / NAME).glob("2*"):
                end_processes(partial(processes_of, View.read(RunDir(path))))


def bare_loops(scale: Scale, *, deterministic: bool) -> dict[str, float]:
    """Images per second of the peer, and of the limit."""
    return images_per_second(replace(scale, rounds=1), {
        "peer": bare(scale, deterministic=deterministic),
        "limit": bare(scale, deterministic=deterministic, on_device=True)})


def drill(home: Path, scale: Scale, *, deterministic: bool) -> Drill:
    """A drill that starts and kills runs of the work."""
    values = config(scale, deterministic=deterministic)
    file = home / f"deterministic_{deterministic}.yaml"
    file.write_text(Loaded(config=build_config([Layer(values=values, origin="benchmark")])).as_yaml())
    return Drill([str(file)], home / "runs", name=NAME, seed=scale.seed, console=Console(stderr=True))


def of_speed(run: RunDir, loops: dict[str, float], what: str, peer_name: str) -> Iterator[Figure]:
    """Medians of the run's own curves, without the first point."""
    curves = EventAccumulator(str(run.tensorboard)).Reload()
    median = {name: statistics.median(point.value for point in curves.Scalars(f"speed/{name}")[1:])
              for name in ("samples_per_second", "data_wait_fraction")}
    yield Figure(part="run", name=f"a whole run, {what}", unit="images/s", ours=median["samples_per_second"],
                 peer=loops["peer"], peer_name=peer_name, limit=loops["limit"],
                 limit_name="with the batch on the device")
    yield Figure(part="run", name=f"part of the time waiting for data, {what}", ours=median["data_wait_fraction"])


def of_start(run: RunDir, began: float) -> Iterator[Figure]:
    first = FirstStep.require(run.attempt(0).first_step).time
    yield Figure(part="run", name="from the command to the first step, with preflight", unit="s", ours=first - began)
    yield Figure(part="run", name="from the launcher's start to the first step", unit="s", ours=start_seconds(run))


def start_seconds(run: RunDir) -> float:
    attempt = run.attempt(0)
    return FirstStep.require(attempt.first_step).time - AttemptStart.require(attempt.launch).time


def of_kills(launcher: Drill, undisturbed: RunDir, scale: Scale) -> Iterator[Figure]:
    """The same run with its rank killed at random steps."""
    killed, injections = launcher.with_faults(scale.work.steps, count=scale.kills, only="rank")
    kills = [kill for kill in injections if not kill.not_injected]
    if not kills:
        raise RuntimeError("the run had ended before its rank was killed: it needs more steps on this machine")
    same = Result.require(killed.result) == Result.require(undisturbed.result)
    yield Figure(part="run", name="from SIGKILL of the rank to the next step", unit="s",
                 ours=statistics.median(kill.recovery_seconds for kill in kills), peer=start_seconds(undisturbed),
                 peer_name="a start of the same run", note=kills[-1].verdict)
    yield Figure(part="run", name=f"the same result bit for bit after {len(kills)} kills (1: yes)", ours=float(same),
                 limit=1.0)
