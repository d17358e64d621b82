"""A run as one self-contained HTML file, to read offline, mail or print.

    python -m drumbeat.trainers.report.report RUN FILE      what `drumbeat report RUN` runs; a sweep is a page, too

Everything is read from the run's folder, in any state of the run; what does not exist yet is left out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from drumbeat.configs.bounds import MOST_BYTES
from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.files import read_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.rank_records import StartingWeights
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.configs.run.versions import LABELS, AttemptVersions
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.configs.secrets import shown
from drumbeat.configs.terminal import print_text_only, visible
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import number
from drumbeat.trainers.report.events import Events, read_events
from drumbeat.trainers.report.gallery import charts, evaluations, images, phase_steps, validations
from drumbeat.trainers.report.history import (
    attempts,
    checkpoints,
    duration,
    errors_and_log,
    moment,
    profiles,
    slow_ranks,
)
from drumbeat.trainers.report.range_test import range_test
from drumbeat.trainers.report.reference import epochs, reference_curves, reference_table
from drumbeat.trainers.report.sweep import sweep_page

COLOURS = {"finished": "good", "failed": "bad", "running": "busy", "pending": "busy"}
"""The colour of a state; all others are "odd"."""
SILENCE_SECONDS = 120.0
"""A running run without a heartbeat for this long may be dead."""


def report(run: RunDir) -> str:
    """The page."""
    config, view = read(run.config), View.read(run)
    state = CheckpointState.read(run.checkpoints / "last" / "state.json")
    progress = state.progress if state else Progress()
    best = view.result.best if view.result else progress.best
    events = read_events(run.tensorboard)
    phases, table = phase_steps(config, progress), epochs(config, events, progress)
    body = [
        _head(view, config), page.cards(_cards(config, view, best, events)),
        page.section("Curves", page.grid([*range_test(events), *charts(events, phases, best.get("step"),
                                                                       reference_curves(table))]),
                     validations(events, phases, best)),
        page.section("Reference", reference_table(config, table)),
        page.section("Evaluation", *evaluations(run)),
        page.section("Images", page.grid(images(events))),
        page.section("Run", page.facts(_facts(view, config))),
        page.section("Versions", page.facts(_versions(view))),
        page.section("Attempts", attempts(view, progress), *slow_ranks(view), *profiles(view),
                     *errors_and_log(view)),
        page.section("Checkpoints", checkpoints(run, config)),
        page.section("Config", page.fold("all values", page.yaml(shown(read_text(run.config, MOST_BYTES))))),
        page.footer(moment(time.time()), run.path),
    ]
    return page.page(f"{config.name} {run.id}", body)


def _head(view: View, config: Config) -> Markup:
    run, beat, state = view.run, view.heartbeat or Heartbeat(), view.state or "unknown"
    text = view.verdict.removeprefix(f"{state} ")
    if state == "finished":
        text = (f"{view.result.steps:,} steps, {view.result.samples_seen:,} samples, "
                 f"{moment(run.result.lstat().st_mtime)}" if view.result else "")
    if view.status and not view.ended and state != "pending":
        text = text or f"last heartbeat {duration(view.seconds_since_heartbeat())} before this report"
        if state == "running" and view.seconds_since_heartbeat() > SILENCE_SECONDS:
            text += "; it may be dead"
        elif state == "running" and beat.eta_seconds is not None:
            text += f", {duration(beat.eta_seconds)} left"
    unfinished = state not in ("finished", "unknown") and beat.steps
    return page.head(run.id, config.name, state=state, colour=COLOURS.get(state, "odd"),
                     text=text if text != state else "",
                     progress=100 * beat.step / beat.steps if unfinished else None)


def _cards(config: Config, view: View, best: dict[str, Any], events: Events) -> Iterator[tuple[str, str, str]]:
    """Label, value and note of the metrics of the best checkpoint and of the test set, and of the run's progress."""
    test, beat = view.result.test if view.result else {}, view.heartbeat
    order = sorted(_metrics(best or test), key=lambda name: name != config.evaluation.monitor)
    for name in order[:3]:
        if name in best:
            yield f"{plain(name)} of the best checkpoint", number(best[name]), f"validation, step {best['step']:,}"
    for name in order[:3]:
        if name in test:
            yield f"test {plain(name)}", number(test[name]), "best checkpoint" if best else "last checkpoint"
    if not best and (loss := events.curves.get("train/loss")):
        yield "training loss", number(loss[-1][1]), f"step {loss[-1][0]:,}"
    if beat:
        total = f"of {beat.steps:,}" if beat.steps else ""
        phase = f"phase {beat.phase}" if beat.phase else ""
        yield "steps taken", f"{beat.step:,}", ", ".join(filter(None, [total, phase]))
    if speeds := events.curves.get("speed/samples_per_second"):
        middle = sorted(speed for _, speed in speeds)[len(speeds) // 2]
        yield "speed", f"{number(middle)}/s", "samples, median"


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}


def _facts(view: View, config: Config) -> Iterator[tuple[str, str]]:
    """Where and on what the run is trained."""
    ranks, job, result = view.plan.topology, view.job, view.result
    yield "ranks", f"{ranks.world_size} {'with one GPU each' if ranks.device == 'cuda' else 'on the CPU'}" + (
        f", {ranks.nodes} nodes x {ranks.ranks_per_node}" if ranks.nodes > 1 else "") + (
        f", {ranks.cpus_per_rank} core{'s' * (ranks.cpus_per_rank != 1)} each")
    backends = {"slurm": "SLURM job", "here": "SLURM allocation (--here)", "debug": "one process (--debug)"}
    yield "fork of", view.fork.text if view.fork else ""
    yield "backend", backends.get(job.backend, "local processes") if job else ""
    yield "submitted on" if job and job.backend == "slurm" else "machine", job.host if job else ""
    yield "SLURM job" if job and job.backend in ("slurm", "here") else "process", (job.id if job else None) or ""
    yield "model", str(config.model.get("_target_", ""))
    yield "started from", started.table if (started := StartingWeights.read(view.run.starting_weights)) else ""
    yield "batch size", f"{config.batch_size:,}"
    yield "phases", ", ".join(f"{name} ({phase.epochs:g} epochs)" for name, phase in config.phases.items() if phase)
    yield "ended early", "; ".join(end.text for end in result.ended) if result else ""
    yield "samples seen", f"{result.samples_seen:,}" if result else ""
    yield "samples skipped", f"{result.samples_skipped:,}" if result and result.samples_skipped else ""
    reason = "NaN or Inf, also by the scale of fp16" if config.precision == "fp16" else "NaN or Inf"
    yield "steps skipped", f"{result.steps_skipped:,} ({reason})" if result and result.steps_skipped else ""
    yield "SHA-256 of the weights", result.weights_sha256 if result else ""
    yield "exactness", exactness(view.changes)
    yield "determinism", claim(view.run)
    yield "folder", str(view.run.path)


def _versions(view: View) -> Iterator[tuple[str, str]]:
    """What the newest attempt computes with, or what the preflight check found; and what the attempts have changed."""
    if found := view.versions.versions if view.versions else view.plan.versions:
        yield from ((label, getattr(found, name) or "") for name, label in LABELS.items())
        yield "device", found.device
        yield "precision", found.precision
    for attempt in view.run.all_attempts():
        if (resumed := AttemptVersions.read(attempt.versions)) and resumed.changes:
            yield f"changed in attempt {attempt.number}", "; ".join(resumed.changes)


def plain(name: str) -> str:
    """The name of a metric as text."""
    return name.replace("_", " ")


def _page(run: RunDir) -> str:
    """The page. Raises `RunError` if a record holds what no run writes, such as a text in place of a step."""
    try:
        return report(run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(Fault(what="the report cannot be written: a file of the run holds what no run writes",
                             where=str(run.path), given=f"{error!r:.300}")) from error


def main(folder: str, file: str) -> int:
    """Writes the page, and prints where it is."""
    run, sweep, out = RunDir(Path(folder)), SweepDir(Path(folder)), Path(file)
    try:
        if out.is_dir():
            raise RunError(Fault(what="the report is a file, but this is a folder", where=str(out),
                                 remedy=f"For example: --out {short(out / 'report.html')}"))
        with Console(file=getattr(sys.stderr, "rich_proxied_file", sys.stderr)).status("reading the run ..."):
            text = visible(sweep_page(sweep) if os.path.lexists(sweep.record) else _page(run))
        try:
            with replacing(out) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(Fault(what=f"the report cannot be written: {error.strerror}", where=str(out),
                                 remedy="Create the folder first, or name another file with --out.")) from error
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"report     {short(out)} ({out.stat().st_size / 1e3:,.0f} kB, self-contained)")
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main(sys.argv[1], sys.argv[2]))
