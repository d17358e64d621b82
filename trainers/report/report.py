"""A run as one self-contained HTML file, to be read offline, sent by mail or printed.

    python -m drumbeat.trainers.report.report RUN FILE      what `drumbeat report RUN` runs

Everything is read from the run's folder, whatever state the run is in: what is not there yet is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import number
from drumbeat.trainers.report.events import Events, read_events
from drumbeat.trainers.report.gallery import charts, evaluations, phase_steps, pictures, validations
from drumbeat.trainers.report.history import attempts, checkpoints, duration, moment, words_of

COLOURS = {"finished": "good", "failed": "bad", "running": "busy", "pending": "busy"}
"""Of a state; of all others, the one for what is odd."""
SILENCE_SECONDS = 120.0
"""A run that goes on and was not heard of for so long may be dead."""


def report(run: RunDir) -> str:
    """The page."""
    config, view = read(run.config), View.read(run)
    state = CheckpointState.read(run.checkpoints / "last" / "state.json")
    progress = state.progress if state else Progress()
    best = view.result.best if view.result else progress.best
    events = read_events(run.tensorboard)
    phases = phase_steps(config, progress.data.get("samples"))
    body = [
        _head(view, config), page.tiles(_tiles(config, view, best, events)),
        page.section("Curves", page.grid(charts(events, phases, best.get("step"))), validations(events, phases, best)),
        page.section("Evaluation", *evaluations(run)),
        page.section("Pictures", page.grid(pictures(events))),
        page.section("Run", page.facts(_facts(view, config))),
        page.section("Attempts", attempts(view, progress), *words_of(view)),
        page.section("Checkpoints", checkpoints(run, config)),
        page.section("Config", page.fold("all values", page.yaml(run.config.read_text(encoding="utf-8")))),
        page.footer(moment(time.time()), run.path),
    ]
    return page.page(f"{config.name} {run.id}", body)


def _head(view: View, config: Config) -> Markup:
    run, beat, state = view.run, view.heartbeat or Heartbeat(), view.state or "unknown"
    words = view.verdict.removeprefix(f"{state} ")
    if state == "finished":
        words = (f"{view.result.steps:,} steps, {view.result.samples_seen:,} samples, "
                 f"{moment(run.result.stat().st_mtime)}" if view.result else "")
    if view.status and not view.ended and state != "pending":
        words = words or f"heard of {duration(view.seconds_since_heartbeat())} before this report"
        if state == "running" and view.seconds_since_heartbeat() > SILENCE_SECONDS:
            words += "; it may be dead"
        elif state == "running" and beat.eta_seconds is not None:
            words += f", {duration(beat.eta_seconds)} to go"
    unfinished = state not in ("finished", "unknown") and beat.steps
    return page.head(run.id, config.name, state=state, colour=COLOURS.get(state, "odd"),
                     words=words if words != state else "",
                     progress=100 * beat.step / beat.steps if unfinished else None)


def _tiles(config: Config, view: View, best: dict[str, Any], events: Events) -> Iterator[tuple[str, str, str]]:
    """The best and the test metrics, and how far the run came."""
    test, beat = view.result.test if view.result else {}, view.heartbeat
    order = sorted(_metrics(best or test), key=lambda name: name != config.evaluation.monitor)
    for name in order[:3]:
        if name in best:
            yield f"best {name}", number(best[name]), f"validation, step {best['step']:,}"
    for name in order[:3]:
        if name in test:
            yield f"test {name}", number(test[name]), "best weights"
    if not best and (loss := events.curves.get("train/loss")):
        yield "training loss", number(loss[-1][1]), f"step {loss[-1][0]:,}"
    if beat:
        total = f"of {beat.steps:,}" if beat.steps else ""
        phase = f"phase {beat.phase}" if beat.phase else ""
        yield "steps", f"{beat.step:,}", ", ".join(filter(None, [total, phase]))
    if speeds := events.curves.get("speed/samples_per_second"):
        middle = sorted(speed for _, speed in speeds)[len(speeds) // 2]
        yield "samples/s", number(middle), "median"


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}


def _facts(view: View, config: Config) -> Iterator[tuple[str, str]]:
    """Where and with what it ran."""
    ranks, job, result = view.plan.topology, view.job, view.result
    yield "ranks", f"{ranks.world_size} {'with one GPU each' if ranks.device == 'cuda' else 'on the CPU'}" + (
        f", {ranks.nodes} nodes x {ranks.ranks_per_node}" if ranks.nodes > 1 else "") + (
        f", {ranks.cpus_per_rank} core{'s' * (ranks.cpus_per_rank != 1)} each")
    places = {"slurm": "through SLURM", "here": "in a SLURM allocation", "debug": "in one process"}
    yield "where", f"{places.get(job.backend, 'on this machine')}, {job.host}" if job and job.host else ""
    yield "job", (job.id if job else None) or ""
    yield "model", str(config.model.get("_target_", ""))
    yield "batch size", f"{config.batch_size:,}"
    yield "phases", ", ".join(f"{name} ({phase.epochs:g} epochs)" for name, phase in config.phases.items() if phase)
    yield "samples seen", f"{result.samples_seen:,}" if result else ""
    yield "samples skipped", f"{result.samples_skipped:,}" if result and result.samples_skipped else ""
    yield "weights, SHA-256", result.weights_sha256 if result else ""
    yield "determinism", claim(view.run)
    yield "folder", str(view.run.path)


def main(folder: str, file: str) -> int:
    """Writes the page; says where."""
    run, out = RunDir(Path(folder)), Path(file)
    try:
        if out.is_dir():
            raise RunError(Fault(what="the report is a file, and this is a folder", where=str(out),
                                 remedy=f"For example: --out {short(out / 'report.html')}"))
        with Console(stderr=True).status("reading the run ..."):
            text = report(run)
        try:
            write_text(out, text, durable=False)
        except OSError as error:
            raise RunError(Fault(what=f"the report cannot be written: {error.strerror}", where=str(out),
                                 remedy="Make the folder first, or name another file with --out.")) from error
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"report     {short(out)} ({out.stat().st_size / 1e3:,.0f} kB, all in this one file)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
