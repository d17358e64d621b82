"""The run whose weights a new run starts from: `initialize.weights` may name it as commands do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from drumbeat.configs.errors import ConfigError, Fault, RunError
from drumbeat.configs.initialize import is_named
from drumbeat.configs.load import Loaded
from drumbeat.configs.merge import is_path
from drumbeat.configs.run.manifest import find_checkpoint
from drumbeat.launch.runs.find import find_run


def with_source_run(loaded: Loaded, runs: Path) -> Loaded:
    """The config, in which `initialize.weights` is an absolute folder if it is one with weights, such as a checkpoint,
    or if it names a run by its folder, its id or the name of an experiment. Files and names of libraries stay. Raises
    `ConfigError` if it names nothing, or a run without checkpoints."""
    weights = loaded.config.initialize.weights
    if weights is None or is_named(weights) or is_path("weights", weights) or weights.startswith("$") or (
            Path(weights).is_file()):
        return loaded
    folder = Path(weights).expanduser().absolute()
    if not (folder / "model.safetensors").is_file():
        try:
            run = find_run(str(folder) if weights.startswith("~") else weights, runs)
            find_checkpoint(run, None)
        except RunError as error:
            (fault, *_) = error.faults
            what = f"'{weights}' is neither a file nor a run" if fault.what.startswith("there is no run") else (
                f"the run to start from cannot be used: {fault.what}")
            raise ConfigError(loaded.located(Fault(what=what, where="initialize.weights", given=weights,
                                                   remedy=fault.remedy))) from None
        folder = run.path
    section = dataclasses.replace(loaded.config.initialize, weights=str(folder))
    return dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, initialize=section))
