"""Rows of a label and a text, as commands print them in 80 columns; metrics as such a text; what slows a run down;
which trackers are behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from drumbeat.configs.errors import hang
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.tracker_records import Forwarded
from drumbeat.configs.run.versions import AttemptVersions
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import metric_fields
from drumbeat.launch.backends.typed import command

NO_BREAK = "\N{NO-BREAK SPACE}"


def row(label: str, text: str, width: int) -> str:
    """A label of `width` columns and a text wrapped beside it. `NO_BREAK` holds two words together on a line."""
    return hang(f"{label:<{width}}", text).replace(NO_BREAK, " ")


def metrics_text(values: Mapping[str, Any], monitor: str = "") -> str:
    """The metrics among the values, the monitored one first. A line break never separates a name from its value."""
    return ", ".join(field.replace(" ", NO_BREAK) for field in metric_fields(values, monitor))


def skipped_text(skipped: int, steps: int, attempt: AttemptVersions | None) -> str:
    """How many steps were skipped, and why: in fp16, in which the newest attempt may compute, the first ones often are.
    """
    fp16 = attempt is not None and attempt.versions.precision == "fp16"
    text = f"{skipped:,} of {steps:,} steps: their loss or gradient was NaN or Inf"
    return f"{text}, as a gradient in fp16 is until its scale fits" if fp16 else text


def slow_parts(view: View) -> Iterator[tuple[str, str]]:
    """What makes a running run slow: labels and texts."""
    if view.state == "running" and (ranks := view.world_size) < (planned := view.plan.topology.world_size):
        yield "ranks", f"{ranks} of {planned}: some nodes are left out, or SLURM had no more"
    if view.slow_rank:
        yield "slow rank", view.slow_rank.message
    if view.state == "running" and view.heartbeat and (imports := view.heartbeat.imports) and imports.are_slow:
        yield "slow start", imports.message
    if view.state == "running" and view.attempt:
        yield from (("idle GPUs", idle.message) for idle in view.attempt.all_idle_gpus())


def behind(view: View) -> Iterator[tuple[str, str]]:
    """The trackers that do not accept what the run writes, or did not until the end: labels and texts."""
    for name in view.plan.trackers:
        with suppress(DamagedError):
            found = Forwarded.read(view.run.tracker(name))
            if found and found.error:
                rest = f"; {command('track', view.run)} sends the rest" if view.ended else ""
                yield "tracker", f"{name} is behind, at step {found.step:,}: {found.error}{rest}"
