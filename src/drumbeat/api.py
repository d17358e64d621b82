"""The Python API: runs are started, found, read, stopped and waited for, as the commands do it, by the same functions.

    run = drumbeat.run("rings.yaml", {"batch_size": 64}, procs=2)
    run.wait().metrics["validation/accuracy"]
    drumbeat.runs("runs").to_pandas("batch_size")

A mistake of the user's is a `drumbeat.configs.errors.UserError` whose text is the screen that the command shows. This
module stands above all others but `drumbeat.sweep_api`: they alone import from the launcher and from the trainers, and
from these when they are needed, so that nothing here imports torch but `Run.model` and `Run.predictor`. docs/python.md
explains it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from drumbeat.configs.errors import ConfigError, Fault, LaunchError, UserError
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.run_metrics import run_metrics
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.configs.yaml_text import dump, inline
from drumbeat.launch.runs.find import all_runs, find_run
from drumbeat.launch.runs.listing import damaged_facts, describe_each, facts
from drumbeat.launch.runs.status import status_text, with_final_state
from drumbeat.launch.runs.stop import cancel, stop
from drumbeat.launch.runs.trust import check_owner
from drumbeat.launch.runs.waiting import POLL_SECONDS, ProgressLine, Wait

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from drumbeat.trainers.inference.predictor import Predictor

Overrides = Sequence[str] | Mapping[str, Any]
"""Changes to a config: ["batch_size=64"] as on the command line, or {"batch_size": 64} by dotted key."""


def run(config: str | Path | Mapping[str, Any], overrides: Overrides = (), *, gpus: int | None = None,
        procs: int | None = None, nodes: int | None = None, slurm: bool = False, here: bool = False,
        profile: str | None = None, name: str | None = None, runs: str | Path = "runs", preflight: bool = True,
        snapshot: bool = True) -> Run:
    """Starts a run and returns it: as `drumbeat run CONFIG --detach`, whose options have the same names. The run
    outlives this process. `config` is a file, the name of a shipped config, or the values themselves, nested as in
    YAML; `runs` is the folder of all runs.

    It prints what the command prints, and returns once the run is checked and started or queued. Raises the `UserError`
    of whatever is wrong, and then nothing is left behind.
    """
    options = {"gpus": gpus, "procs": procs, "nodes": nodes, "slurm": slurm, "here": here, "profile": profile,
               "name": name, "runs": runs, "no-preflight": not preflight, "no-snapshot": not snapshot}
    return Run(RunDir(started("run", config, overrides, options)))


def runs(folder: str | Path = "runs") -> Runs:
    """All runs in a folder of runs, oldest first. They are not read before something is asked of them."""
    return Runs(Run(one) for one in all_runs(Path(folder)))


class Run:
    """A run, as its folder tells of it at the moment of each question; nothing is kept."""

    def __init__(self, run: str | Path | RunDir, runs: str | Path = "runs") -> None:
        """The run that commands find by this text among `runs`: by its folder, its id, a unique prefix of it, or the
        name of an experiment for its latest run. Raises `RunError`."""
        self.folder = run if isinstance(run, RunDir) else find_run(str(run), Path(runs))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.path.parent.name

    @property
    def status(self) -> View:
        """What `drumbeat status` reads: `status.state`, `status.heartbeat`, `status.result`, ... Raises a `UserError`
        if a file is damaged."""
        return with_final_state(View.read(self.folder))

    @property
    def state(self) -> str:
        """pending, running, paused, stopping, preempted, stopped, failed, cancelled or finished."""
        return self.status.state or "unknown"

    @property
    def config(self) -> Config:
        """The resolved config."""
        return read(self.folder.config)

    @property
    def metrics(self) -> dict[str, float]:
        """`validation/NAME` of the best weights so far, and `test/NAME` at the end: see `run_metrics`."""
        return run_metrics(View.read(self.folder))

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """The points (step, value) of each curve by its name in TensorBoard, such as `train/loss`. A step that was
        repeated after a restart counts once."""
        from drumbeat.trainers.report.events import read_events

        return read_events(self.folder.tensorboard).curves

    def model(self, checkpoint: str | int | None = None, device: str = "cpu", *, trust: bool = False) -> nn.Module:
        """The model with the weights of a checkpoint ("best", "last" or a step; by default the best), in evaluation
        mode. Its class is imported in this process, as the code is now. `trust` executes a config that another user may
        have written. Raises a `UserError`."""
        import torch

        from drumbeat.trainers.inference.load import good_checkpoint, load_model, task_without_sets

        self._check_trusted(trust)
        path, _ = good_checkpoint(self.folder, None if checkpoint is None else str(checkpoint))
        with torch.random.fork_rng(devices=[]):  # building it draws random weights
            return load_model(self.config, path, torch.device(device), task_without_sets(self.config, path))

    def predictor(self, checkpoint: str | int | None = None, device: str = "cpu", *, trust: bool = False) -> Predictor:
        """The model with all that comes before and after it: `predictor([image])[0].prediction`. Arguments as of
        `model`."""
        from drumbeat.trainers.inference.predictor import Predictor

        self._check_trusted(trust)
        return Predictor.from_run(self.path, None if checkpoint is None else str(checkpoint), device)

    def stop(self) -> str:
        """Asks the run to save a checkpoint and exit, as `drumbeat stop`. Returns a message. Raises `RunError`."""
        return stop(self.folder)

    def cancel(self) -> str:
        """Ends the run at once, as `drumbeat cancel`. Returns a message. Raises `RunError`."""
        return cancel(self.folder)

    def resume(self, overrides: Overrides = (), *, gpus: int | None = None, procs: int | None = None,
               nodes: int | None = None, slurm: bool = False, here: bool = False, profile: str | None = None,
               preflight: bool = True, new_code: bool = False, take_over: bool = False, trust: bool = False) -> Run:
        """Resumes the run from its newest checkpoint, as `drumbeat resume`, whose options have the same names. Returns
        itself. Raises a `UserError`."""
        return Run(RunDir(started("resume", self.path, overrides, {
            "gpus": gpus, "procs": procs, "nodes": nodes, "slurm": slurm, "here": here, "profile": profile,
            "no-preflight": not preflight, "new-code": new_code, "take-over": take_over, "trust": trust})))

    def rerun(self, overrides: Overrides = (), *, gpus: int | None = None, procs: int | None = None,
              nodes: int | None = None, slurm: bool = False, here: bool = False, profile: str | None = None,
              name: str | None = None, preflight: bool = True, new_code: bool = False, trust: bool = False) -> Run:
        """Starts the code and config of this run again, as `drumbeat rerun`. Returns the new run, which is beside this
        one. Raises a `UserError`."""
        return Run(RunDir(started("rerun", self.path, overrides, {
            "gpus": gpus, "procs": procs, "nodes": nodes, "slurm": slurm, "here": here, "profile": profile,
            "name": name, "runs": self.folder.all_runs, "no-preflight": not preflight, "new-code": new_code,
            "trust": trust})))

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> Run:
        """Waits until the run has ended, in whatever way, and shows its progress. An interrupt (Ctrl-C) ends the wait
        and not the run. Returns itself. Raises `TimeoutError` after so many seconds."""
        waiting, line, until = Wait(self.folder), ProgressLine(), time.monotonic() + (timeout or 0.0)
        try:
            while True:
                view, over = waiting.look()
                if progress:
                    line.show(view)
                if over:
                    return self
                if timeout is not None and time.monotonic() > until:
                    raise TimeoutError(f"{self.id} is {view.state} after {timeout:g} s")
                time.sleep(POLL_SECONDS)
        finally:
            line.end()

    async def finished(self) -> Run:
        """The same without blocking: `await run.finished()` leaves the event loop to others, such as a notebook's
        widgets and other cells. The files are read in a thread. Cancelling it does not end the run."""
        waiting = Wait(self.folder)
        while not (await asyncio.to_thread(waiting.look))[1]:
            await asyncio.sleep(POLL_SECONDS)
        return self

    def _check_trusted(self, trust: bool) -> None:
        if not trust:
            check_owner(self.folder, "this", "trust=True")

    def __str__(self) -> str:
        """What `drumbeat status` prints."""
        return status_text(self.status)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)


class Runs(list[Run]):
    """A list of runs: `Runs(run for run in drumbeat.runs() if run.name == "rings").to_pandas()`."""

    def to_pandas(self, *keys: str) -> pandas.DataFrame:
        """A row for each run, in this order: the fields of `drumbeat ls --json`, nested ones with dots in their names
        (`result.best.accuracy`), and a column for each of these dotted `keys` of the config. Many runs that have ended
        are read once, and then found in an index, as by the command; the config of each is read if keys are given.
        Raises `LaunchError` without pandas."""
        pandas = pandas_module("Runs.to_pandas")
        rows = list(describe_each([one.folder for one in self], facts, damaged_facts)) if self else []
        table = pandas.json_normalize(rows)
        for key in keys:
            table[key] = [_value(one, key) for one in self]
        return table


def _value(run: Run, key: str) -> Any:
    """The value of a dotted key in a run's config; None if it has none, or the config cannot be read."""
    try:
        found: Any = run.config
    except UserError:
        return None
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else getattr(found, part, None)
    return found


def pandas_module(where: str) -> Any:
    """The module pandas, for the method `where`. Raises `LaunchError` if it is not installed."""
    try:
        import pandas
    except ModuleNotFoundError:
        raise LaunchError(Fault(what="pandas is not installed", where=where,
                                remedy="pip install 'drumbeat[pandas]'")) from None
    return pandas


def started(command: str, what: str | Path | Mapping[str, Any], overrides: Overrides, options: Mapping[str, Any]
            ) -> Path:
    """Types a command about a run, an option, or a config, which may be the values themselves. Returns the folder of
    what it has started. Raises the command's `UserError`."""
    if isinstance(what, Mapping):
        with TemporaryDirectory() as folder:
            file = Path(folder, "config.yaml")
            file.write_text(dump(plain_value(_with_base(what))), encoding="utf-8")
            try:
                return started(command, file, overrides, options)
            except UserError as error:
                raise type(error)(*(Fault(**{
                    key: text.replace(str(file), "config") for key, text in vars(fault).items()
                }) for fault in error.faults)) from None
    from drumbeat.launch.commands.from_python import start_detached

    changes = overrides if not isinstance(overrides, Mapping) else [
        f"{key}={inline(plain_value(value))}" for key, value in overrides.items()]
    if isinstance(changes, str):
        raise ConfigError(Fault(what="overrides are a list of KEY=VALUE, or a dict", where="overrides", given=changes,
                                remedy=f"Write [{changes!r}]"))
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
             if value is not None and value is not False]
    return start_detached([command, str(what), *map(str, changes), *flags])


def _with_base(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config, whose base is a file in the current folder or the name of one of Drumbeat's own."""
    base = config.get("base")
    here = isinstance(base, str | Path) and Path(base).is_file()
    return {**config, "base": str(Path(str(base)).absolute())} if here else config


def plain_value(value: Any) -> Any:
    """A value as YAML knows it. Raises `ConfigError`."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        if hasattr(value, "item"):  # a number of numpy
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise ConfigError(Fault(what=f"a config holds numbers, texts, lists and sections, not a {type(value).__name__}",
                                where="config", given=f"{value!r:.200}",
                                remedy="Name a class by its address, and its arguments: {'_target_': 'torch.nn.ReLU'}"))
    return [plain_value(item) for item in value]
