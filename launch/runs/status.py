"""The state and progress of a run, read from its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.bad_nodes import remember_all
from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.lock import changing, is_changing
from drumbeat.configs.run.manifest import checkpoint_text
from drumbeat.configs.run.records import ENDED, Heartbeat, Saved, Status
from drumbeat.configs.run.view import View
from drumbeat.configs.text_fields import clock
from drumbeat.launch.attempts.cause import cause
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Evidence
from drumbeat.launch.backends.local import place
from drumbeat.launch.runs.goodput import goodput, text
from drumbeat.launch.runs.notices import report
from drumbeat.launch.runs.remedy import resume_command
from drumbeat.launch.runs.rows import behind, metrics_text, row, skipped_text, slow_parts

WIDTH = 16
"""Of the labels."""
FRESH_SECONDS = 10.0
"""A run on SLURM whose last heartbeat is younger than this is running, and SLURM is not asked: ranks write one about
once a second. SLURM answers for all runs at once, so the others cost one question."""


def status_text(view: View) -> str:
    """The state and progress of a run, in a few lines."""
    beat, result = view.heartbeat, view.result
    monitor = beat.monitor if beat else ""
    rows = [("run", view.run.id), *([("fork of", view.fork.text)] if view.fork else []),
            ("state", view.state or "unknown")]
    if view.verdict and view.verdict != view.state:
        rows.append(("last attempt" if view.state == "running" else "verdict", view.verdict))
    if beat:
        rows += _progress(view, beat, running=view.state == "running")
    rows += [*slow_parts(view), *behind(view)]
    if result and result.best:
        rows.append(("best", metrics_text(result.best, monitor)))
    elif beat and beat.best is not None:
        rows.append(("best", metrics_text({monitor: beat.best})))
    if result and result.test:
        rows.append(("test", metrics_text(result.test, monitor)))
    if spent := goodput(view):
        rows.append(("time", text(spent)))
    if view.status and not view.ended:
        rows.append(("last heartbeat", f"{view.seconds_since_heartbeat():.0f} s ago"))
    rows += _versions(view)
    if note := exactness(view.changes):
        rows.append(("exactness", note))
    if note := claim(view.run):
        rows.append(("determinism", note))
    if view.job and view.job.id and not view.ended:
        backend = backend_of(view.backend)
        visible = backend.on_slurm or view.job.is_here
        rows.append(("job", f"{view.job.id} ({backend.id_description if visible else f'process {place(view.job)}'})"))
    typed = [("resume", resume_command(view))] if view.ended and view.state != "finished" else []
    return "\n".join([*(row(label, value, WIDTH) for label, value in rows),
                      *(f"{label:<{WIDTH}}{value}" for label, value in [*typed, ("folder", str(view.run.path))])])


def _progress(view: View, beat: Heartbeat, *, running: bool) -> Iterator[tuple[str, str]]:
    """The progress of the run and, while it is `running`, its speed."""
    steps = f" of {beat.steps:,}" if beat.steps else ""
    yield "step", f"{beat.step:,}{steps}{f', phase {beat.phase}' if beat.phase else ''}"
    if beat.steps_skipped:
        yield "skipped", skipped_text(beat.steps_skipped, beat.step, view.versions)
    if beat.micro_batch_size:
        yield "micro-batch", f"at most {beat.micro_batch_size:,} samples at a time, which fit into memory"
    if beat.loss is not None:
        yield "train loss", f"{beat.loss:.4f}"
    if beat.validation:
        yield "validation", metrics_text(beat.validation, beat.monitor)
    if beat.samples_per_second is not None and beat.eta_seconds is not None and running:
        yield "speed", f"{beat.samples_per_second:.1f} samples/s, {clock(beat.eta_seconds)} left"
    if beat.gpu and running:
        yield "GPU", _gpu_text(beat.gpu)


def _versions(view: View) -> Iterator[tuple[str, str]]:
    """The versions of the newest attempt, or of the preflight check, and what has changed since the checkpoint."""
    if versions := view.versions.versions if view.versions else view.plan.versions:
        yield "versions", versions.software()
        yield "device", versions.hardware() or "not known yet"
    if view.versions:
        yield from (("changed", change) for change in view.versions.changes)


def _gpu_text(used: dict[str, int]) -> str:
    """Memory and utilization of rank 0's GPU, from the last heartbeat."""
    busy = f", {used['utilization']}% busy" if "utilization" in used else ""
    return (f"{used['reserved'] / 2**30:.1f} of {used['total'] / 2**30:.1f} GiB held by rank 0, tensors "
            f"{used['peak'] / 2**30:.1f} at most{busy}")


def with_final_state(view: View, evidence: str | None = None, *, report: Callable[[View], None] = report) -> View:
    """The view, with the end of a run whose launcher could not record it. `evidence` is `running_evidence`, if the
    caller knows it. The end of a run on SLURM is recorded, because SLURM soon forgets it. An end or a long wait that
    was not reported yet is reported now, by `report`."""
    status = unrecorded_end(view, evidence)
    if status is None:
        report(view)
        return view
    if backend_of(view.backend).on_slurm and os.geteuid() in (0, view.run.path.stat().st_uid):
        with suppress(RunError, OSError), changing(view.run, "status"):  # unless another command is changing the run
            if Status.read(view.run.status) == view.status and not view.run.is_superseded(view.number):
                status.write(view.run.status, durable=False)
                end = backend_of(view.backend).unrecorded_end(view)
                remember_all(view.run, end.bad_nodes, end.time)
    view = replace(view, status=status)
    report(view)
    return view


def unrecorded_end(view: View, evidence: str | None = None) -> Status | None:
    """The end of a run whose launcher could not record it because it was killed or its machine failed, or which never
    started; None if the run is running or waiting, or its end is recorded."""
    if not may_have_ended(view):
        return None
    if evidence is None:
        evidence = backend_of(view.backend).evidence_of([view])[0].text
    if evidence:
        return None
    os.listdir(view.run.path)  # over NFS, the next read sees what the launcher has recorded meanwhile
    latest = Status.read(view.run.status)
    if latest != view.status:
        return latest if latest and latest.state in ENDED else None
    return final_status(view)


def may_have_ended(view: View) -> bool:
    """Whether a run that has recorded no end may have ended, as far as its folder says. SLURM may hide the waiting jobs
    of other users."""
    on_slurm = backend_of(view.backend).on_slurm
    if view.state == "pending" or (view.state == "preempted" and on_slurm):
        return not is_changing(view.run) and (not on_slurm or os.geteuid() in (0, view.run.path.stat().st_uid))
    fresh = on_slurm and view.seconds_since_heartbeat() < FRESH_SECONDS  # no need to ask
    return view.state in ("running", "paused") and not fresh


def asks_slurm(view: View) -> bool:
    """Whether SLURM knows more of a run than its folder."""
    return backend_of(view.backend).on_slurm and may_have_ended(view)


def evidence_of(views: Sequence[View]) -> dict[Path, Evidence]:
    """`running_evidence` of the runs that may have ended, by folder. SLURM is asked once for all."""
    found: dict[Path, Evidence] = {}
    for name in {view.backend for view in views}:
        some = [view for view in views if view.backend == name and may_have_ended(view)]
        found |= zip([view.run.path for view in some], backend_of(name).evidence_of(some), strict=True)
    return found


def final_status(view: View) -> Status:
    """How a run ended that has no processes left: as its ranks recorded, otherwise it failed."""
    waiting = view.state in ("pending", "preempted")
    attempt = None if waiting else view.attempt  # the attempt is that of an earlier start
    if attempt and (saved := Saved.read(attempt.saved)):
        verdict = saved.state if saved.state == "finished" else f"stopped at step {saved.step}"
        return Status(state=saved.state, attempt=view.number, verdict=verdict, time=view.last_heartbeat)
    end = backend_of(view.backend).unrecorded_end(view)
    state, reason = end.state, end.reason
    if attempt and attempt.errors():
        state, reason = "failed", cause(attempt).message
    reason = reason or (
        "the command that started it was killed" if view.state == "pending" and view.job and not view.job.id else
        "its launcher was killed, or its machine failed")
    return Status(state=state, attempt=view.number, verdict=f"{reason}; {checkpoint_text(view.run)}",
                  time=view.last_heartbeat)


