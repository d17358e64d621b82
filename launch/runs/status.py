"""How a run is doing, told from its folder alone."""

from __future__ import annotations

import time

from drumbeat.configs.determinism import claim
from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import ENDED, RunDir, read_json
from drumbeat.configs.run.manifest import checkpoint_path, damage, saved_steps
from drumbeat.launch.attempts.cause import cause
from drumbeat.launch.attempts.verdict import newest_checkpoint
from drumbeat.launch.runs.find import SILENCE_SECONDS, command, still_runs
from drumbeat.launch.runs.goodput import goodput, text

JOBS = {"slurm": "SLURM", "here": "SLURM, and yours: the run is a step of it"}
"""What a job's number is, by where the run was started."""


def status_text(run: RunDir) -> str:
    """How a run is doing, in a few lines."""
    status = read_json(run.status) | gone(run)
    rows = [("run", run.id), ("state", str(status.get("state", "unknown")))]
    if status.get("verdict") and status["verdict"] != status.get("state"):
        rows.append(("verdict", status["verdict"]))
    if "step" in status:
        steps = f" of {status['steps']:,}" if status.get("steps") else ""
        phase = f", phase {status['phase']}" if "phase" in status else ""
        rows.append(("step", f"{status['step']:,}{steps}{phase}"))
    if "loss" in status:
        rows.append(("loss", f"{status['loss']:.4f}"))
    if status.get("validation"):
        rows.append(("validation", ", ".join(f"{name} {value:.4f}" for name, value in status["validation"].items())))
    if "samples_per_second" in status and status.get("state") == "running":
        rows.append(("speed", f"{status['samples_per_second']:.1f} samples/s, {clock(status['eta_seconds'])} to go"))
    if status.get("gpu") and status.get("state") == "running":
        rows.append(("GPU", _gpu_text(status["gpu"])))
    if spent := goodput(run):
        rows.append(("time", text(spent)))
    if "time" in status and status.get("state") not in ENDED:
        rows.append(("heard of", f"{max(0, time.time() - status['time']):.0f} s ago"))
    result = read_json(run.result)
    rows += [(name, ", ".join(f"{key} {value:.4f}" for key, value in result[name].items() if isinstance(value, float)))
             for name in ("best", "test") if result.get(name)]
    if words := claim(run):
        rows.append(("determinism", words))
    if (job := read_json(run.job)).get("id") and status.get("state") not in ENDED:
        rows.append(("job", f"{job['id']} ({JOBS.get(job['where'], 'process on this machine')})"))
    state = status.get("state")
    typed = [("resume", command("resume", run))] if state in ENDED and state != "finished" else []
    return "\n".join([*(hang(f"{name:<12}", value) for name, value in rows),
                      *(f"{name:<12}{value}" for name, value in [*typed, ("folder", str(run.path))])])


def _gpu_text(used: dict[str, int]) -> str:
    """Memory and work of rank 0's GPU, as it was told last."""
    busy = f", {used['busy']}% busy" if "busy" in used else ""
    return (f"{used['held'] / 2**30:.1f} of {used['all'] / 2**30:.1f} GiB held by rank 0, tensors "
            f"{used['peak'] / 2**30:.1f} at most{busy}")


def gone(run: RunDir) -> dict[str, str]:
    """The state and verdict of a run whose launcher could not write them any more, because it was killed or its machine
    went down; nothing where it is at work, waits or has ended."""
    status = read_json(run.status)
    elsewhere = read_json(run.job).get("where") in ("here", "slurm")
    if status.get("state") not in ("running", "paused") or (
            elsewhere and time.time() - float(status.get("time", 0.0)) < SILENCE_SECONDS) or still_runs(run):
        return {}
    attempt = run.newest_attempt()
    errors = attempt.errors() if attempt else []
    why = cause(attempt).words if attempt and errors else "its launcher was killed, or its machine went down"
    step = newest_checkpoint(run)
    last = f"the last checkpoint is of step {step}" if step >= 0 else "there is no checkpoint"
    return {"state": "failed", "verdict": f"{why}; {last}"}


def checkpoints_text(run: RunDir) -> str:
    """The checkpoints of a run, newest first, each with what it is and whether it can be relied on."""
    last, best = ((run.checkpoints / name).resolve().name for name in ("last", "best"))
    if not saved_steps(run):
        raise RunError(Fault(what="there are no checkpoints yet", where=str(run.checkpoints)))
    phases = list(read(run.config).phases)
    rows = [("step", "phase", "size", "saved", "validation", "state")]
    for step in saved_steps(run):
        path = checkpoint_path(run, step)
        progress = read_json(path / "state.json").get("progress", {})
        judged = progress.get("last", {}) if progress.get("last", {}).get("step") == step else {}
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in judged.items() if isinstance(value, float))
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        minutes = (time.time() - path.stat().st_mtime) / 60
        age = f"{minutes:.0f} min ago" if minutes < 100 else f"{minutes / 60:.0f} h ago"
        words = [*(["last"] if path.name == last else []), *(["best"] if path.name == best else []),
                 damage(path) or "digests agree"]
        number = progress.get("phase", len(phases))
        phase = phases[number] if number < len(phases) else "?"
        rows.append((f"{step:,}", phase, f"{size:,.1f} MB", age, metrics, ", ".join(words)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"set aside  {short(path)}" for path in sorted(run.checkpoints.glob("bad-*")))])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
