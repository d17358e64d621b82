"""Curves, plots and images of a run, as parts of its report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.files import DamagedError, open_file, read_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import Chart, colours, draw, number
from drumbeat.trainers.report.events import Curve, Events
from drumbeat.trainers.report.page import Figure

PhaseSteps = tuple[str, int, int]
"""Name, first and last step of a phase."""

WAITING = "time waiting for data"
WAITING_FOR_RANK = "time waiting for the slowest rank"
RATE = "train/lr"
OWN_TITLES = {
    RATE: "learning rate", "speed/samples_per_second": "samples per second",
    "speed/data_wait_fraction": WAITING, "speed/wait_for_slowest_rank": WAITING_FOR_RANK,
}
"""Curves with their own chart. The others share a chart with the curves of the same name: train/loss,
validation/loss."""
SHEETS = ("worst_samples",)
"""Images of `drumbeat evaluate` that show samples and take the whole width of the page."""
LINES = 40
"""The largest number of lines of metrics that are shown unfolded."""
MAX_EVALUATIONS, MAX_PLOTS = 100, 50
"""The largest number of evaluations in a report, and of plots in each."""
MAX_TEXT = 2**20
"""Bytes of a metrics.txt that is shown."""
NOT_DRAWN = ("train/epoch", "speed/step_seconds", "speed/slowest_rank")
"""Curves that follow from others, and numbers that are no quantities."""


def phase_steps(config: Config, progress: Progress) -> list[PhaseSteps]:
    """Name, first and last step of each phase; empty if the size of the training set is not known yet."""
    found: list[PhaseSteps] = []
    if samples := progress.data.get("samples"):
        for name, schedule in zip(config.phases, build_schedules(config, samples, progress), strict=False):
            first = found[-1][2] if found else 0
            found.append((name, first, first + schedule.steps))
    return found


def charts(events: Events, phases: list[PhaseSteps], best: int | None,
           reference: Mapping[str, Curve] = MappingProxyType({})) -> Iterator[Figure]:
    """A chart for each metric, with the curves of training and validation and those of a `reference`, by tag; then
    learning rate, speed and waiting."""
    groups: dict[str, dict[str, str]] = {}
    for tag in sorted(events.curves, key=lambda tag: (tag.startswith("speed/"), tag.startswith(RATE))):
        group, _, name = tag.partition("/")
        title = OWN_TITLES.get(tag, (name or group).replace("_", " "))
        if tag.startswith(f"{RATE}/"):  # that of one parameter group
            group, title = tag.removeprefix(f"{RATE}/"), OWN_TITLES[RATE]
        if tag not in NOT_DRAWN and any(math.isfinite(value) for _, value in events.curves[tag]):
            groups.setdefault(title, {})[group] = tag
    last = max((events.curves[tag][-1][0] for tags in groups.values() for tag in tags.values()), default=0)
    for title, tags in groups.items():
        curves = {group: events.curves[tag] for group, tag in tags.items()}
        source = {group: reference[tag] for group, tag in tags.items() if tag in reference}
        chart = Chart(title=title, curves=curves, reference=source, percent=title in (WAITING, WAITING_FOR_RANK),
                      from_zero="speed" in curves, magnitudes=title in ("loss", "learning rate"),
                      best=best if "validation" in curves else None)
        named = title not in OWN_TITLES.values() or len(curves) > 1
        shown = dict(zip(curves, colours(curves), strict=True)) if named else {}
        notes = ["╌ source" if source else "", f"┊ best checkpoint, step {best:,}" if chart.best else ""]
        yield Figure(title, Markup(draw(chart, phases, last)), shown, ", ".join(filter(None, notes)))


def validations(events: Events, phases: list[PhaseSteps], best: dict[str, Any]) -> Markup:
    """A table of all evaluations of the validation set."""
    curves = {tag.partition("/")[2]: dict(curve) for tag, curve in events.curves.items()
              if tag.startswith("validation/")}
    steps = sorted(set().union(*curves.values()))
    rows = [(f"{step:,}", next((name for name, _, last in phases if step <= last), ""),
             *(number(curve[step]) if step in curve else "" for curve in curves.values()),
             "best" if step == best.get("step") else "") for step in steps]
    table = page.table(["step", "phase", *(name.replace("_", " ") for name in curves), ""], rows)
    return page.fold("table of all evaluations of the validation set", table) if rows else Markup()


def evaluations(run: RunDir) -> Iterator[Markup]:
    """What `drumbeat evaluate` has written: metrics, plots and sheets."""
    for folder in sorted(path for path in (run.path / "evaluation").glob("*") if path.is_dir())[:MAX_EVALUATIONS]:
        text = folder / "metrics.txt"
        files = sorted(folder.glob("*.png"), key=lambda path: (path.stem in SHEETS, path.stem))[:MAX_PLOTS]
        plots = [Figure("", _plot(path), kind="wide" if path.stem in SHEETS else "plot") for path in files]
        alone = sum(path.stem not in SHEETS for path in files) % 2 == 1
        split, _, step = folder.name.rpartition("-")
        title, metrics = f"{split}, step {step}" if split else folder.name, ""
        with suppress(FileNotFoundError, DamagedError):
            metrics = read_text(text, MAX_TEXT).rstrip()
            if heading := re.match(r"(\w+ set) of \S+, (.+)\n\n", metrics):  # the page already names the run
                title, metrics = f"{heading[1]}, {heading[2]}", metrics[heading.end():]
        if metrics or plots:
            yield page.subtitle(title)
        if metrics:
            listing, short = page.listing(metrics), metrics.count("\n") <= LINES
            if short and alone:
                plots.insert(0, Figure("", listing))
            else:
                yield listing if short else page.fold("metrics", listing)
        yield page.grid(plots)


def _plot(path: Path) -> Markup:
    """A plot of an evaluation, or a line that says that it cannot be read."""
    title = path.stem.replace("_", " ")
    try:
        with open_file(path, page.MAX_IMAGE) as file:
            return page.image(file.read(), title)
    except (FileNotFoundError, DamagedError):
        return page.unreadable(title)


def images(events: Events) -> Iterator[Figure]:
    """The newest image of each tag; sheets with text on them are as wide as the page."""
    for tag, image in sorted(events.images.items(), key=lambda item: (item[0][:6] != "train/", item[1].step)):
        group, _, name = tag.partition("/")
        title = f"training samples: {name}" if group == "train" else f"{group}: {name.replace('_', ' ')}"
        yield Figure(title, page.image(image.data, title), note=f"step {image.step:,}",
                     kind="" if group == "train" else "wide")
