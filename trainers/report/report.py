"""A run as one self-contained HTML file, to be read offline, sent by mail or printed.

    python -m drumbeat.trainers.report.report RUN FILE      what `drumbeat report RUN` runs

Everything is read from the run's folder, whatever state the run is in: what is not there yet is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from drumbeat.configs.determinism import claim
from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import ENDED, RunDir, read_json, write_text
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
    config, status = read(run.config), read_json(run.status)
    progress = read_json(run.checkpoints / "last" / "state.json").get("progress", {})
    result = read_json(run.result) or progress
    events = read_events(run.tensorboard)
    phases = phase_steps(config, progress.get("data", {}).get("samples"))
    body = [
        _head(run, config, status), page.tiles(_tiles(config, status, result, events)),
        page.section("Curves", page.grid(charts(events, phases, result.get("best", {}).get("step"))),
                     validations(events, phases, result)),
        page.section("Evaluation", *evaluations(run)),
        page.section("Pictures", page.grid(pictures(events))),
        page.section("Run", page.facts(_facts(run, config))),
        page.section("Attempts", attempts(run, status, progress), *words_of(run, status)),
        page.section("Checkpoints", checkpoints(run, config)),
        page.section("Config", page.fold("all values", page.yaml(run.config.read_text(encoding="utf-8")))),
        f"<footer>Written by Drumbeat on {moment(time.time())} from {escape(str(run.path))}.</footer>",
    ]
    return page.page(f"{config.name} {run.id}", body)


def _head(run: RunDir, config: Config, status: dict[str, Any]) -> str:
    state = str(status.get("state", "unknown"))
    words = str(status.get("verdict") or "").removeprefix(f"{state} ")
    if state == "finished":
        result = read_json(run.result)
        words = (f"{result.get('steps', 0):,} steps, {result.get('samples_seen', 0):,} samples, "
                 f"{moment(run.result.stat().st_mtime)}" if result else "")
    if state not in (*ENDED, "pending") and "time" in status:
        silence = time.time() - float(status["time"])
        words = words or f"heard of {duration(silence)} before this report"
        if state == "running" and silence > SILENCE_SECONDS:
            words += "; it may be dead"
        elif state == "running" and "eta_seconds" in status:
            words += f", {duration(status['eta_seconds'])} to go"
    bar = ""
    if state not in ("finished", "unknown") and status.get("steps"):
        bar = f'<div class="progress"><i style="width: {100 * status.get("step", 0) / status["steps"]:.1f}%"></i></div>'
    return (f'<header><p class="faint mono">{escape(run.id)}</p><h1>{escape(config.name)}</h1>'
            f'<p class="state"><span class="badge {COLOURS.get(state, "odd")}">{escape(state)}</span>'
            f'<span>{escape(words if words != state else "")}</span></p>{bar}</header>\n')


def _tiles(config: Config, status: dict[str, Any], result: dict[str, Any],
           events: Events) -> Iterator[tuple[str, str, str]]:
    """The best and the test metrics, and how far the run came."""
    best, test = result.get("best") or {}, result.get("test") or {}
    order = sorted(_metrics(best or test), key=lambda name: name != config.evaluation.best_by)
    for name in order[:3]:
        if name in best:
            yield f"best {name}", number(best[name]), f"validation, step {best['step']:,}"
    for name in order[:3]:
        if name in test:
            yield f"test {name}", number(test[name]), "best weights"
    if not best and (loss := events.curves.get("train/loss")):
        yield "training loss", number(loss[-1][1]), f"step {loss[-1][0]:,}"
    if "step" in status:
        total = f"of {status['steps']:,}" if status.get("steps") else ""
        phase = f"phase {status['phase']}" if "phase" in status else ""
        yield "steps", f"{status['step']:,}", ", ".join(filter(None, [total, phase]))
    if speeds := events.curves.get("speed/samples_per_second"):
        middle = sorted(speed for _, speed in speeds)[len(speeds) // 2]
        yield "samples/s", number(middle), "median"


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float)}


def _facts(run: RunDir, config: Config) -> Iterator[tuple[str, str]]:
    """Where and with what it ran."""
    plan, job, result = read_json(run.plan), read_json(run.job), read_json(run.result)
    if topology := plan.get("topology"):
        ranks = topology["nodes"] * topology["ranks_per_node"]
        yield "ranks", f"{ranks} {'with a GPU each' if topology['device'] == 'cuda' else 'on the CPU'}" + (
            f", {topology['nodes']} nodes x {topology['ranks_per_node']}" if topology["nodes"] > 1 else "") + (
            f", {topology['cpus_per_rank']} core{'s' * (topology['cpus_per_rank'] != 1)} each")
    places = {"slurm": "through SLURM", "here": "in a SLURM allocation", "debug": "in one process"}
    where = places.get(str(job.get("where")), "on this machine")
    yield "where", f"{where}, {job['host']}" if job.get("host") else ""
    yield "job", str(job.get("id") or "")
    yield "model", str(config.model.get("_target_", ""))
    yield "batch size", f"{config.batch_size:,}"
    yield "phases", ", ".join(f"{name} ({phase.epochs:g} epochs)" for name, phase in config.phases.items() if phase)
    yield "samples seen", f"{result['samples_seen']:,}" if "samples_seen" in result else ""
    yield "samples skipped", f"{result['samples_skipped']:,}" if result.get("samples_skipped") else ""
    yield "weights, SHA-256", str(result.get("weights_sha256", ""))
    yield "determinism", claim(run)
    yield "folder", str(run.path)


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
