"""The checkpoints of a run: what each one is, and whether its files are intact."""

from __future__ import annotations

import time
from typing import Any

from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import (
    QUARANTINED,
    checkpoint_path,
    damage,
    has_no_weights,
    linked_checkpoint,
    progress_at,
    saved_steps,
)
from drumbeat.configs.text_table import aligned

RIGHT = (0, 2, 3, 4)
"""The columns of numbers."""


def facts(run: RunDir) -> list[dict[str, Any]]:
    """What is known of each checkpoint, the newest first. `metrics` is the evaluation of these very weights, empty if
    they were not evaluated; `kept` are the keys of the config that keep it although there are newer ones; `damage` is
    '' if all digests match, and `removed` says that `drumbeat clean` has left only the state.json. Raises `RunError` if
    there are no checkpoints."""
    if not saved_steps(run):
        raise RunError(Fault(what="there are no checkpoints yet", where=str(run.checkpoints),
                             remedy="Find out how far the run is: drumbeat why RUN"))
    last, best = (linked_checkpoint(run, name) for name in ("last", "best"))
    phases = list(read(run.config).phases)
    newest = progress_at(checkpoint_path(run, saved_steps(run)[0]))
    found = []
    for step in saved_steps(run):
        path = checkpoint_path(run, step)
        try:
            size, saved_at = sum(file.lstat().st_size for file in path.iterdir()), path.stat().st_mtime
            wrong = damage(path)
        except FileNotFoundError:  # the run has deleted it meanwhile, having saved newer ones
            continue
        progress = progress_at(path)
        evaluation = progress.last if progress and progress.last.get("step") == step else {}
        phase = phases[progress.phase] if progress and progress.phase < len(phases) else None
        found.append({"step": step, "phase": phase, "bytes": size, "time": saved_at,
                      "metrics": {name: value for name, value in evaluation.items() if isinstance(value, float)},
                      "last": path == last, "best": path == best, "kept": _kept_by(newest, step), "damage": wrong,
                      "removed": has_no_weights(path), "folder": str(path)})
    return found


def checkpoints_text(run: RunDir) -> str:
    """The checkpoints in a table, with the monitored metric; below it what is wrong with the damaged ones, and which
    folders are quarantined."""
    found, monitor = facts(run), read(run.config).evaluation.monitor
    rows = [("step", "phase", "size", "age", monitor, "state")]
    for one in found:
        value = one["metrics"].get(monitor)
        state = ["no weights" if one["removed"] else "damaged" if one["damage"] else "ok",
                 *(name for name in ("last", "best") if one[name])]
        state += one["kept"] if not one["best"] else []
        rows.append((f"{one['step']:,}", one["phase"] or "?", f"{one['bytes'] / 1e6:,.1f} MB",
                     _age(time.time() - one["time"]), "" if value is None else f"{value:.4f}", ", ".join(state)))
    reasons = [f"step {one['step']:,}: {one['damage']}" for one in found
               if one["damage"] and not one["removed"]]
    return "\n".join([*aligned(rows, RIGHT), *(hang("damaged      ", reason) for reason in reasons),
                      *(f"quarantined  {short(path)}" for path in sorted(run.checkpoints.glob(f"{QUARANTINED}*")))])


def _kept_by(newest: Progress | None, step: int) -> list[str]:
    """The keys below `checkpoints` that keep a checkpoint although there are newer ones."""
    if newest is None:
        return []
    best = {int(one["step"]) for one in [*([newest.best] if newest.best else []), *newest.top]}
    return ["keep_best"] * (step in best) + ["keep_every_epochs"] * (step in newest.kept)


def _age(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} h"
