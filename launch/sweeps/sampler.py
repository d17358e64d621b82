"""Values that a sampler of optuna chooses, from what earlier trials have reached: the extra `sweeps`.

The study is a journal in the sweep's folder, which needs no server. A trial gets its values when it starts; its best
metric is reported to the study before the next one gets some.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, LaunchError, nearest
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial
from drumbeat.launch.sweeps.notation import Draw, values_of

SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler",
            "random": "RandomSampler"}
"""Names of samplers in `optuna.samplers`. Any other is given by its address."""


def check_sampler(name: str) -> None:
    """Raises `LaunchError` without optuna, and `ConfigError` if there is no such sampler."""
    if importlib.util.find_spec("optuna") is None:
        raise LaunchError(Fault(what="optuna is not installed", where="--sampler", given=name,
                                remedy="pip install 'drumbeat[sweeps]'"))
    if name not in SAMPLERS and "." not in name:
        raise ConfigError(Fault(what=f"there is no sampler '{name}'", where="--sampler",
                                remedy=f"{nearest(name, SAMPLERS)} Or give the address of a class: my_lab.MySampler"))
    _class_of(name)


def chosen(folder: SweepDir, sweep: Sweep, number: int, results: Mapping[int, float | None]) -> Trial:
    """Trial `number` with values. `results` are the metrics of the trials that have ended, None for one that failed."""
    study = _study(folder, sweep, number)
    known = {one.user_attrs["number"]: one for one in study.get_trials(deepcopy=False)}
    for ended, metric in results.items():
        if ended in known and not known[ended].state.is_finished():
            study.tell(known[ended].number, metric, state=None if metric is not None else _failed())
    if number not in known:  # or this queue was killed before it could record the values
        study.ask(_spaces(sweep)).set_user_attr("number", number)
        known = {one.user_attrs["number"]: one for one in study.get_trials(deepcopy=False)}
    params = known[number].params
    return replace(sweep.trials[number], values={key: _text(params[key]) for key in sweep.space})


def ends_of(sweep: Sweep) -> list[Trial]:
    """Two trials with the first and the last values of all keys, to be checked before the start."""
    trials = []
    for number, at in enumerate((0.0, 1 - 2**-53)):
        found = {key: values_of(key, text) for key, text in sweep.space.items()}
        trials.append(Trial(number=number, values={
            key: one.at(at) if isinstance(one, Draw) else one[int(at * len(one))] for key, one in found.items()}))
    return trials


def _study(folder: SweepDir, sweep: Sweep, number: int) -> Any:
    """The study, with a sampler whose random numbers depend on the sweep's seed and the number of the trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder.studies))), study_name=sweep.id, load_if_exists=True,
        sampler=_class_of(sweep.sampler)(seed=1000 * sweep.seed + number),
        direction="minimize" if sweep.mode == "min" else "maximize")


def _class_of(name: str) -> Any:
    """The class of a sampler. Raises `ConfigError` if it cannot be imported."""
    module, _, found = f"optuna.samplers.{SAMPLERS[name]}".rpartition(".") if name in SAMPLERS else (
        name.rpartition("."))
    try:
        return getattr(importlib.import_module(module), found)
    except (ImportError, AttributeError) as error:
        raise ConfigError(Fault(what=f"the sampler cannot be imported: {error}", where="--sampler",
                                given=name)) from None


def _spaces(sweep: Sweep) -> dict[str, Any]:
    """The distributions of optuna for the sweep's keys: a list is a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    spaces: dict[str, Any] = {}
    for key, text in sweep.space.items():
        one = values_of(key, text)
        if not isinstance(one, Draw) or one.kind == "choice":
            spaces[key] = CategoricalDistribution(one.arguments if isinstance(one, Draw) else one)
        elif one.kind == "randint":
            low, high = (int(float(one)) for one in one.arguments)
            spaces[key] = IntDistribution(low, high)
        else:
            first, last = map(float, one.arguments)
            spaces[key] = FloatDistribution(first, last, log=one.kind == "loguniform")
    return spaces


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
