"""A run as one self-contained HTML file, to be read offline, sent by mail or printed.

    python -m trainers.report RUN FILE      what `drumbeat report RUN` runs

Everything is read from the run's folder, whatever state the run is in: what is not there yet is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from configs.errors import Fault, RunError, UserError
from configs.layers import short
from configs.load import read
from configs.manifest import checkpoint_path, saved_steps
from configs.rundir import ENDED, Attempt, RunDir, read_json, write_text
from configs.schema import Config
from data.order import Timetable
from trainers import page
from trainers.charts import Chart, colours, draw, number
from trainers.curves import Events, read_events

COLOURS = {"finished": "good", "failed": "bad", "running": "busy", "pending": "busy"}
"""Of a state; of all others, the one for what is odd."""
SILENCE_SECONDS = 120.0
"""A run that goes on and was not heard of for so long may be dead."""
LOG_LINES = 60

OWN_TITLES = {
    "train/rate": "learning rate", "speed/samples_per_second": "samples/s",
    "speed/data_wait_fraction": "time spent waiting for data",
}
"""Curves with a chart of their own; the others share one with those of the same name: train/loss, validation/loss."""
NOT_DRAWN = ("train/epoch", "speed/step_seconds")
"""Which follow from the others."""


def report(run: RunDir) -> str:
    """The page."""
    config, status = read(run.config), read_json(run.status)
    progress = read_json(run.checkpoints / "last" / "state.json").get("progress", {})
    result = read_json(run.result) or progress
    events = read_events(run.tensorboard)
    phases = phase_steps(config, progress.get("data", {}).get("samples"))
    body = [
        _head(run, config, status), page.tiles(_tiles(config, status, result, events)),
        page.section("Curves", page.grid(_charts(events, phases, result.get("best", {}).get("step"))),
                     _validations(events, phases, result)),
        page.section("Evaluation", *_evaluations(run)),
        page.section("Pictures", page.grid(_pictures(events))),
        page.section("Run", page.facts(_facts(run, config))),
        page.section("Attempts", _attempts(run, status, progress), *_words_of(run, status)),
        page.section("Checkpoints", _checkpoints(run, config)),
        page.section("Config", page.fold("all values", page.yaml(run.config.read_text(encoding="utf-8")))),
        f"<footer>Written by Drumbeat on {_moment(time.time())} from {page.escape(str(run.path))}.</footer>",
    ]
    return page.page(f"{config.name} {run.id}", body)


def phase_steps(config: Config, samples: int | None) -> list[tuple[str, int, int]]:
    """Name, first and last step of each phase; nothing where the size of the training set is not known yet."""
    found: list[tuple[str, int, int]] = []
    for name, phase in config.phases.items():
        if phase is not None and samples:
            first = found[-1][2] if found else 0
            steps = Timetable(samples, phase.batch_size or config.batch_size, phase.epochs).steps
            found.append((name, first, first + steps))
    return found


def _head(run: RunDir, config: Config, status: dict[str, Any]) -> str:
    state = str(status.get("state", "unknown"))
    words = str(status.get("verdict") or "").removeprefix(f"{state} ")
    if state == "finished":
        result = read_json(run.result)
        words = (f"{result.get('steps', 0):,} steps, {result.get('samples_seen', 0):,} samples, "
                 f"{_moment(run.result.stat().st_mtime)}" if result else "")
    if state not in ENDED and "time" in status:
        silence = time.time() - float(status["time"])
        words = words or f"heard of {_duration(silence)} before this report"
        words += "; it may be dead" if state == "running" and silence > SILENCE_SECONDS else ""
    bar = ""
    if state not in ("finished", "unknown") and status.get("steps"):
        bar = f'<div class="progress"><i style="width: {100 * status.get("step", 0) / status["steps"]:.1f}%"></i></div>'
    return (f'<header><p class="faint mono">{page.escape(run.id)}</p><h1>{page.escape(config.name)}</h1>'
            f'<p class="state"><span class="badge {COLOURS.get(state, "odd")}">{page.escape(state)}</span>'
            f'<span>{page.escape(words if words != state else "")}</span></p>{bar}</header>\n')


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


def _charts(events: Events, phases: list[tuple[str, int, int]], best: int | None) -> Iterator[str]:
    """A chart for each metric, with its curves of training and validation; then rate, speed and waiting."""
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for tag in sorted(events.curves, key=lambda tag: (tag.startswith("speed/"), tag in OWN_TITLES)):
        group, _, name = tag.partition("/")
        if tag not in NOT_DRAWN and any(abs(value) < float("inf") for _, value in events.curves[tag]):
            groups.setdefault(OWN_TITLES.get(tag, name or group), {})[group] = events.curves[tag]
    last = max((curve[-1][0] for curves in groups.values() for curve in curves.values()), default=0)
    for title, curves in groups.items():
        chart = Chart(title=title, curves=curves, percent="data" in title, from_zero="speed" in curves,
                      magnitudes=title in ("loss", "learning rate"), best=best if "validation" in curves else None)
        shown = dict(zip(curves, colours(curves), strict=True)) if title not in OWN_TITLES.values() else {}
        yield page.figure(title, draw(chart, phases, last), shown, f"┊ best, step {best:,}" if chart.best else "")


def _validations(events: Events, phases: list[tuple[str, int, int]], result: dict[str, Any]) -> str:
    """Every evaluation of the validation set in numbers."""
    curves = {tag.partition("/")[2]: dict(curve) for tag, curve in events.curves.items()
              if tag.startswith("validation/")}
    steps = sorted(set().union(*curves.values()))
    best = result.get("best", {}).get("step")
    rows = [(f"{step:,}", next((name for name, _, last in phases if step <= last), ""),
             *(number(curve[step]) if step in curve else "" for curve in curves.values()),
             "best" if step == best else "") for step in steps]
    return page.fold("validation in numbers", page.table(["step", "phase", *curves, ""], rows)) if rows else ""


def _evaluations(run: RunDir) -> Iterator[str]:
    """What `drumbeat evaluate` has left in the run's folder: figures, plots and sheets."""
    for folder in sorted(path for path in (run.path / "evaluation").glob("*") if path.is_dir()):
        text = folder / "figures.txt"
        plots = [page.figure(path.stem.replace("_", " "), page.image(path.read_bytes(), path.stem))
                 for path in sorted(folder.glob("*.png"))]
        if text.is_file() or plots:
            split, _, step = folder.name.rpartition("-")
            yield f"<h3>{page.escape(f'{split}, step {step}' if split else folder.name)}</h3>"
        if text.is_file():
            yield f'<pre class="plain">{page.escape(text.read_text(encoding="utf-8").rstrip())}</pre>'
        yield page.grid(plots)


def _pictures(events: Events) -> Iterator[str]:
    """The newest sheet of each tag; those with something to read on them as wide as the page."""
    for tag, picture in sorted(events.pictures.items(), key=lambda item: (item[0][:6] != "train/", item[1].step)):
        group, _, name = tag.partition("/")
        title = f"what the model saw: {name}" if group == "train" else f"{group} {name}"
        yield page.figure(title, page.image(picture.data, title), note=f"step {picture.step:,}", wide=group != "train")


def _facts(run: RunDir, config: Config) -> Iterator[tuple[str, str]]:
    """Where and with what it ran."""
    plan, job, result = read_json(run.plan), read_json(run.job), read_json(run.result)
    if topology := plan.get("topology"):
        ranks = topology["nodes"] * topology["ranks_per_node"]
        yield "ranks", f"{ranks} {'with a GPU each' if topology['device'] == 'cuda' else 'on the CPU'}" + (
            f", {topology['nodes']} nodes x {topology['ranks_per_node']}" if topology["nodes"] > 1 else "") + (
            f", {topology['cpus_per_rank']} core{'s' * (topology['cpus_per_rank'] != 1)} each")
    where = {"slurm": "through SLURM", "debug": "in one process"}.get(str(job.get("where")), "on this machine")
    yield "where", f"{where}, {job['host']}" if job.get("host") else ""
    yield "job", str(job.get("id") or "")
    yield "model", str(config.model.get("_target_", ""))
    yield "batch size", f"{config.batch_size:,}"
    yield "phases", ", ".join(f"{name} ({phase.epochs:g} epochs)" for name, phase in config.phases.items() if phase)
    yield "samples seen", f"{result['samples_seen']:,}" if "samples_seen" in result else ""
    yield "samples skipped", f"{result['samples_skipped']:,}" if result.get("samples_skipped") else ""
    yield "weights, SHA-256", str(result.get("weights_sha256", ""))
    yield "folder", str(run.path)


def _attempts(run: RunDir, status: dict[str, Any], progress: dict[str, Any]) -> str:
    """Each start of all ranks: on how many, how many of its steps count, and how it ended."""
    spans = progress.get("ledger", [])
    rows = []
    newest = run.newest_attempt()
    for path in sorted(run.attempts.glob("[0-9]*")) if newest else ():
        attempt = Attempt(path)
        mine = [span for span in spans if span["attempt"] == attempt.number]
        began = read_json(attempt.launch).get("time")
        rows.append((str(attempt.number), _moment(began) if began else "", str(mine[0]["ranks"]) if mine else "",
                     f"{sum(span['steps'] for span in mine):,}" if mine else "0",
                     _end_of(attempt, status if path == newest.path else {})))  # type: ignore[union-attr]
    return page.table(["attempt", "began", "ranks", "steps saved", "end"], rows) if rows else ""


def _end_of(attempt: Attempt, status: dict[str, Any]) -> str:
    """How an attempt ended, in words. `status` is the run's where the attempt is its newest."""
    verdict, saved, errors = read_json(attempt.verdict), read_json(attempt.saved), attempt.errors()
    if verdict:
        return str(verdict["words"]) + (f"; {verdict['next']}" if verdict["next"] in ("restart", "requeue") else "")
    if saved:
        return f"{saved['state']} at step {saved['step']:,}"
    if errors:
        return f"failed at step {errors[0]['step']:,}: {errors[0]['type']}: {str(errors[0]['message'])[:300]}"
    return str(status.get("state", "ended without a word"))


def _words_of(run: RunDir, status: dict[str, Any]) -> Iterator[str]:
    """Of the newest attempt: the traceback it failed with, and the last lines of a log."""
    attempt = run.newest_attempt()
    if attempt is None:
        return
    errors = attempt.errors()
    rank = read_json(attempt.verdict).get("rank", -1)
    first = next((error for error in errors if error["rank"] == rank), errors[0] if errors else None)
    if first:
        yield page.fold(f"traceback of rank {first['rank']}", page.listing(str(first["traceback"]).rstrip()),
                        opened=status.get("state") == "failed")
    logs = [attempt.log(first["rank"] if first else 0), attempt.log(0), attempt.node_log(0)]
    if log := next((log for log in logs if log.is_file() and log.stat().st_size), None):
        lines = _tail(log)
        yield page.fold(f"{attempt.path.name}/{log.name}, the last lines" if len(lines) == LOG_LINES
                        else f"{attempt.path.name}/{log.name}", page.listing("\n".join(lines)))


def _tail(log: Path) -> list[str]:
    """The last lines of a log that may be large."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 200 * LOG_LINES))
        return file.read().decode(errors="replace").splitlines()[-LOG_LINES:]


def _checkpoints(run: RunDir, config: Config) -> str:
    """What is saved, newest first."""
    links = {name: (run.checkpoints / name).resolve() for name in ("last", "best")}
    rows = []
    for step in saved_steps(run):
        path = checkpoint_path(run, step)
        state = read_json(path / "state.json").get("progress", {})
        phases = dict(enumerate(config.phases))
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        words = [name for name, linked in links.items() if linked == path.resolve()]
        if not (path / "manifest.json").is_file():
            words.append("not complete")
        rows.append((f"{step:,}", phases.get(state.get("phase", -1), ""), f"{size:,.1f} MB",
                     _moment(path.stat().st_mtime), ", ".join(words)))
    return page.table(["step", "phase", "size", "saved", ""], rows) if rows else ""


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _duration(seconds: float) -> str:
    """A length of time in its largest fitting unit."""
    units: Iterable[tuple[float, str]] = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    return next((f"{seconds / size:.0f} {name}" for size, name in units if seconds >= 2 * size), f"{seconds:.0f} s")


def main(folder: str, file: str) -> int:
    """Writes the page; says where."""
    run, out = RunDir(Path(folder)), Path(file)
    try:
        if out.is_dir():
            raise RunError(Fault(what="the report is a file, and this is a folder", where=str(out),
                                 remedy=f"For example: --out {short(out / 'report.html')}"))
        try:
            write_text(out, report(run), durable=False)
        except OSError as error:
            raise RunError(Fault(what=f"the report cannot be written: {error.strerror}", where=str(out),
                                 remedy="Make the folder first, or name another file with --out.")) from error
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"report     {short(out)} ({out.stat().st_size / 1e6:.1f} MB, all in this one file)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
