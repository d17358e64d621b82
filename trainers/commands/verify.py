"""Verifies which samples a run has used: compares its ledger with the recomputed order of samples.

    python -m drumbeat.trainers.commands.verify RUN [--builds-set]      exit code 1 if they differ

No target in the run's config is built without --builds-set, which an order that depends on the training set needs. It
trusts only the seed and the spans of the run. The sample at each position follows from the config, and the uses of
each sample are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from drumbeat.configs.errors import Fault, RunError, UserError, hang
from drumbeat.configs.load import read
from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.checkpoint_records import CheckpointState, ConfigChange, PhaseEnd, Span
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.configs.terminal import print_text_only
from drumbeat.data.bar import Bar
from drumbeat.data.ledger import blocks, expected
from drumbeat.data.loader import Samples
from drumbeat.data.order import Integers, Stream
from drumbeat.data.sampling import LengthBuckets, SampleStream
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.sample_counts import check_unchanged, describe_training_set

COUNTED = 2**28
"""For larger sets only the digests are compared: a count for each sample would take too much memory."""


@dataclass
class PhaseReport:
    """One phase of the ledger, and its faults."""

    name: str
    schedule: Schedule
    spans: list[Span]
    rule: str
    uses: Integers | None
    """How often each sample was used, int64 [n]; None for very large sets."""
    faults: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return sum(span.steps for span in self.spans)


@dataclass(frozen=True)
class Report:
    """The phases in a run's newest checkpoint, and the number of samples that could not be read."""

    phases: list[PhaseReport]
    skipped: int
    changes: Sequence[ConfigChange] = ()
    """What resumes have changed in the run's config."""
    ended: Sequence[PhaseEnd] = ()
    """Phases that have ended before their last epoch."""

    @property
    def faults(self) -> int:
        return sum(len(phase.faults) for phase in self.phases)


def verify(run: RunDir, progress: Callable[[int, int], None] = lambda done, total: None, *,
           builds_set: bool = True) -> Report:
    """Recomputes each span in the run's newest checkpoint. `progress` is called with the number of samples that are
    done and their total. Raises `RunError` if there is nothing to verify, or if the order depends on the training set
    and it must not be built (`builds_set`), and `PreflightError` if the set has changed."""
    state = CheckpointState.read(run.checkpoints / "last" / "state.json")
    if state is None or not state.progress.ledger:
        raise RunError(Fault(what="the run has no ledger yet", where=str(run.checkpoints),
                             remedy="It is saved with the first checkpoint."))
    config = read(run.config)
    done, spans = state.progress, state.progress.ledger
    total = sum(span.samples for span in spans)
    n = int(done.data["samples"])
    samples = None
    if config.data.sampling or config.data.bucket_batches:
        if not builds_set:
            raise RunError(Fault(what="the order of samples depends on the training set", where=str(run.config)))
        samples = _training_set(config)
        check_unchanged(done.data, describe_training_set(samples), allow_change=config.data.allow_change)
    reports, schedules = [], build_schedules(config, n, done)
    for number, (name, phase) in enumerate(config.phases.items()):
        if phase is None or number > done.phase:
            continue
        schedule = schedules[number]
        mine = [span for span in spans if span.phase == number]
        before = sum(span.samples for span in spans if span.phase < number)
        report = _phase(config, name, number, schedule, samples, mine,
                        lambda more, before=before: progress(before + more, total))  # type: ignore[misc]
        end = mine[-1].first_step + mine[-1].steps if mine else 0
        taken = done.phase_step if number == done.phase else schedule.steps
        if end != taken:
            report.faults.append(f"{taken:,} steps were taken, but the ledger ends with step {end:,}")
        reports.append(report)
    return Report(reports, done.skipped, done.changes, done.ended)


def _phase(config: Config, name: str, number: int, schedule: Schedule, samples: Samples | None, spans: list[Span],
           progress: Callable[[int], None]) -> PhaseReport:
    n = schedule.n
    stream: SampleStream = Stream(n, config.seed, number, config.data.shuffle)
    if config.data.sampling:
        from drumbeat.trainers.build import build_stream  # imports torch, which the default order does not need

        stream = build_stream(config, cast(Samples, samples), number)
    rule = getattr(stream, "rule", "every sample once an epoch")
    if config.data.bucket_batches is not None:
        rule += f"; {_windows(config, schedule, stream, samples, 0).rule}"
    uses = np.zeros(n, dtype=np.int64) if n <= COUNTED else None
    report = PhaseReport(name, schedule, spans, rule, uses)
    seen = 0

    def count(used: Integers) -> None:
        nonlocal seen
        if uses is not None:
            np.add.at(uses, used, 1) if len(used) < n else np.add(uses, np.bincount(used, minlength=n), out=uses)
        seen += len(used)
        progress(seen)

    step = 0
    for span in spans:
        if span.first_step > step:
            report.faults.append(f"{_steps(step, span.first_step)} missing from the ledger")
        if span.first_step < step:
            report.faults.append(f"{_steps(span.first_step, step)} twice in the ledger")
        step = span.first_step + span.steps
        positions = _positions(config, schedule, stream, samples, span)
        samples_of_order, digest = expected(positions, stream.indices, count)
        if (samples_of_order, f"{digest:016x}") != (span.samples, span.digest):
            what = "the digest differs from that of the order" if samples_of_order == span.samples else (
                f"{span.samples:,} samples, but the order has {samples_of_order:,}")
            report.faults.append(f"{_steps(span.first_step, step)} ({_attempt(span.attempt, span.world_size)}): {what}")
    if step > schedule.steps:
        report.faults.append(f"{step:,} steps were taken, but the phase has {schedule.steps:,}")
    return report


def _positions(config: Config, schedule: Schedule, stream: SampleStream, samples: Samples | None,
           span: Span) -> Iterable[Integers]:
    """The positions that the steps of a span read, in blocks."""
    if config.data.bucket_batches is None:
        return blocks(schedule.start(span.first_step), schedule.start(span.first_step + span.steps))
    return islice(_windows(config, schedule, stream, samples, span.first_step), span.steps)


def _windows(config: Config, schedule: Schedule, stream: SampleStream, samples: Samples | None,
             first: int) -> LengthBuckets:
    return LengthBuckets(schedule, stream, cast(Any, samples).lengths, batches=config.data.bucket_batches or 1, rank=0,
                         world_size=1, first=first)


def _training_set(config: Config) -> Samples:
    from drumbeat.trainers.build import build_sets

    return build_sets(config).train


def report_text(run: RunDir, report: Report) -> str:
    """The report as text."""
    lines = [f"run        {run.path.parent.name}/{run.id}"]
    for phase in report.phases:
        table, spans = phase.schedule, len(phase.spans)
        read_so_far = table.start(phase.steps)
        whole = phase.steps == table.steps
        lines += ["", f"phase      {phase.name}: {table.n:,} samples, batches of {table.batch_size:,}; {phase.rule}",
                  f"steps      {phase.steps:,} of {table.steps:,} in {spans:,} span{'s' * (spans != 1)}"
                  + "".join(f", {attempt}" for attempt in _attempts(phase.spans)),
                  f"samples    {read_so_far:,}: {min(read_so_far, table.samples) / table.n:.6g} epochs"
                  + (f" and {table.overshoot:,} samples past the last epoch boundary"
                     if whole and table.overshoot else "")]
        if phase.uses is not None:
            lines.append(f"uses       {_uses(phase.uses)}")
        lines += [f"ERROR      {fault}" for fault in phase.faults]
    if report.skipped:
        lines += ["", f"skipped    {report.skipped:,} of these could not be read and were replaced by others"]
    verdict = "the ledger agrees with the order of samples in every span" if not report.faults else (
        f"the ledger differs from the order of samples: {report.faults} error{'s' * (report.faults > 1)}")
    notes = [end.text for end in report.ended]
    notes += [f"{note}; the samples are the same"] if (note := claim(run)) else []
    notes += [f"the run is {note}"] if (note := exactness(report.changes)) else []
    return "\n".join([*lines, "", f"verdict    {verdict}", *(hang("note       ", note) for note in notes)])


def _attempts(spans: list[Span]) -> list[str]:
    widths = {span.attempt: span.world_size for span in spans}
    return [_attempt(attempt, ranks) for attempt, ranks in widths.items()]


def _attempt(number: int, ranks: int) -> str:
    return f"attempt {number} on {ranks} rank{'s' * (ranks > 1)}"


def _steps(done: int, end: int) -> str:
    """The steps after step `done` up to step `end`, counted from 1 like the steps of checkpoints."""
    return f"steps {done + 1:,} to {end:,}" if end - done != 1 else f"step {end:,}"


def _uses(uses: Integers) -> str:
    """How many samples were used how often, as text."""
    times, samples = np.unique(uses, return_counts=True)
    if len(times) > 4:
        return f"from {times[0]:,} to {times[-1]:,} times, {uses.mean():.4g} on average"
    names = {0: "never", 1: "once", 2: "twice"}
    parts = [f"{count:,} sample{'s' * (count != 1)} {names.get(time, f'{time:,} times')}"
             for time, count in zip(times.tolist(), samples.tolist(), strict=True)]
    return f"all {parts[0]}" if len(parts) == 1 else ", ".join(parts)


def main(folder: str, *, builds_set: bool = True) -> int:
    """Prints the report. Returns 1 if there are errors."""
    run = RunDir(Path(folder))
    try:
        with Bar() as bar:
            report = verify(run, partial(bar, "recomputing the order"), builds_set=builds_set)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report_text(run, report))
    return int(report.faults > 0)


if __name__ == "__main__":
    print_text_only()
    sys.exit(main(sys.argv[1], builds_set="--builds-set" in sys.argv))
