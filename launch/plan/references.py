"""The environment variables that a run's processes read because its config refers to them (`configs/variables.py`)."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.load import plain
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.configs.variables import digest, late, variables


def with_references(plan: JobPlan, config: Config, before: JobPlan | None = None) -> JobPlan:
    """The plan with the names of the variables, and a digest of each value that refers to some. It can be compared with
    those of `before`, the run's last plan, also if the run's folder has been renamed since."""
    found = dict(late(plain(config)))
    names = {name: None for text in found.values() for name in variables(text)}
    salt = (before.references_salt if before else "") or (secrets.token_hex(8) if found else "")
    return dataclasses.replace(plan, variables=(*names, *config.notify.to), references_salt=salt, references={
        key: digest(key, text, salt) for key, text in found.items()})


def check_references(plan: JobPlan, before: JobPlan) -> None:
    """Raises `ConfigError` if a value that refers to variables is not what it was when the run was started, unless it
    is a secret."""
    changed = [key for key, known in before.references.items() if known != plan.references.get(key, known)]
    if changed:
        raise ConfigError(*(Fault(
            what=f"{key} has another value than when the run was started", where=key,
            given=f"it refers to {', '.join(plan.variables)}",
            remedy="Set the variables as they were; or start a new run: drumbeat rerun RUN") for key in changed))


def not_exported(names: Sequence[str], export: str | None) -> list[str]:
    """The variables among `names` that sbatch's option --export keeps from the job."""
    given = [one.partition("=")[0] for one in str(export).split(",")]
    return [] if export is None or "ALL" in given else [name for name in names if name not in given]
