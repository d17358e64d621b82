"""The lines about schedulers and averages of the weights that `drumbeat show` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drumbeat.configs.errors import hang
from drumbeat.configs.schema import Config
from drumbeat.configs.yaml_text import inline


def schedule_lines(config: Config) -> Iterator[str]:
    """For each phase its scheduler with its arguments, and how its weights are averaged."""
    for name, phase in config.phases.items():
        if phase is not None:
            rate = f"{_named(phase.scheduler)}, every {phase.scheduler_every}" if phase.scheduler else (
                "a constant learning rate")
            steps = phase.average_every
            every = "every epoch" if steps is None else "every step" if steps == 1 else f"every {steps} steps"
            average = f"; average of the weights: {_named(phase.average)}, {every}" if phase.average else ""
            yield hang(f"{'schedule':<11}", f"{name}: {rate}{average}")


def _named(node: Mapping[str, Any]) -> str:
    """A target by the last part of its address, with its arguments."""
    name = str(node.get("_target_", "")).rpartition(".")[2]
    arguments = ", ".join(f"{key} {_value(value)}" for key, value in node.items() if key != "_target_")
    return f"{name} ({arguments})" if arguments else name


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "_target_" in value:
        return _named(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else inline(value)
