"""Whether a run has used the samples it should have: its ledger against the order worked out anew.

    python -m trainers.verify RUN      exit code 1 where they disagree

Nothing of the run is believed but its seed and its spans: which sample belongs to which position follows from the
config, and how often each was used is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from configs.errors import Fault, RunError, UserError
from configs.load import read
from configs.rundir import RunDir, read_json
from configs.schema import Config, Phase
from data.ledger import Span, blocks, expected
from data.loader import Samples
from data.order import Integers, Stream, Timetable
from data.sampling import LengthWindows, SampleStream

COUNTED = 2**28
"""Sets larger than this are checked by their digests alone: a count for each sample would take too much memory."""


@dataclass
class PhaseReport:
    """One phase of the ledger, and what is wrong with it."""

    name: str
    timetable: Timetable
    spans: list[Span]
    rule: str
    uses: Integers | None
    """How often each sample was used, int64 [n]."""
    faults: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return sum(span.steps for span in self.spans)


def verify(run: RunDir, progress: Callable[[int, int], None] = lambda done, total: None) -> list[PhaseReport]:
    """The phases of the run's newest checkpoint, each span worked out anew. `progress` is told how many samples were
    and of how many. Raises `RunError` where there is nothing to verify."""
    state = read_json(run.checkpoints / "last" / "state.json").get("progress", {})
    if not state.get("ledger"):
        raise RunError(Fault(what="there is no ledger yet", where=str(run.checkpoints),
                             remedy="It comes with the first checkpoint."))
    config = read(run.config)
    spans = [Span.from_json(values) for values in state["ledger"]]
    total = sum(span.samples for span in spans)
    n = int(state["data"]["samples"])
    samples = _training_set(config) if config.data.sampling or config.data.length_window else None
    reports = []
    for number, (name, phase) in enumerate(config.phases.items()):
        mine = [span for span in spans if span.phase == number]
        if mine and phase is not None:
            done = sum(span.samples for span in spans if span.phase < number)
            reports.append(_phase(config, name, phase, number, n, samples, mine,
                                  lambda more, done=done: progress(done + more, total)))  # type: ignore[misc]
    return reports


def _phase(config: Config, name: str, phase: Phase, number: int, n: int, samples: Samples | None, spans: list[Span],
           progress: Callable[[int], None]) -> PhaseReport:
    timetable = Timetable(n, phase.batch_size or config.batch_size, phase.epochs)
    stream: SampleStream = Stream(n, config.seed, number, config.data.shuffle)
    if config.data.sampling:
        from trainers.build import build_stream  # with torch, which the plain order can do without

        stream = build_stream(config, cast(Samples, samples), number)
    rule = getattr(stream, "rule", "every sample once an epoch")
    uses = np.zeros(n, dtype=np.int64) if n <= COUNTED else None
    report = PhaseReport(name, timetable, spans, rule, uses)
    seen = 0

    def count(used: Integers) -> None:
        nonlocal seen
        if uses is not None:
            np.add.at(uses, used, 1) if len(used) < n else np.add(uses, np.bincount(used, minlength=n), out=uses)
        seen += len(used)
        progress(seen)

    step = 0
    for span in spans:
        if span.first != step:
            report.faults.append(f"steps {step:,} to {span.first:,} are in no span")
        step = span.first + span.steps
        reads = _reads(config, timetable, stream, samples, span)
        should = expected(reads, stream.indices, count)
        if should != (span.samples, span.digest):
            what = "other samples than" if should[0] == span.samples else f"{span.samples:,} samples, not the"
            of = "" if should[0] == span.samples else f"{should[0]:,} of "
            report.faults.append(f"steps {span.first:,} to {step:,} (attempt {span.attempt}, {span.ranks} ranks) used "
                                 f"{what} {of}the order")
    if step > timetable.steps:
        report.faults.append(f"{step:,} steps were taken, and the phase has {timetable.steps:,}")
    return report


def _reads(config: Config, timetable: Timetable, stream: SampleStream, samples: Samples | None,
           span: Span) -> Iterable[Integers]:
    """The positions that the steps of a span read, in blocks."""
    if config.data.length_window is None:
        return blocks(span.first * timetable.batch_size, (span.first + span.steps) * timetable.batch_size)
    windows = LengthWindows(timetable, stream, cast(Any, samples).lengths, batches=config.data.length_window, rank=0,
                            world_size=1, first=span.first)
    return (positions for _, positions in zip(range(span.steps), windows, strict=False))


def _training_set(config: Config) -> Samples:
    from trainers.build import build_sets

    return build_sets(config).train


def report_text(run: RunDir, reports: list[PhaseReport]) -> str:
    """The report, for a terminal."""
    lines = [f"run        {run.path.parent.name}/{run.id}"]
    for report in reports:
        table = report.timetable
        read_so_far = report.steps * table.batch_size
        whole = report.steps == table.steps
        lines += ["", f"phase      {report.name}: {table.n:,} samples, batches of {table.batch_size:,}; {report.rule}",
                  f"steps      {report.steps:,} of {table.steps:,} in {len(report.spans)} spans, "
                  f"{_attempts(report.spans)}",
                  f"samples    {read_so_far:,}: {min(read_so_far, table.samples) / table.n:.6g} epochs"
                  + (f" and {table.overshoot:,} samples past the last mark" if whole and table.overshoot else "")]
        if report.uses is not None:
            lines.append(f"uses       {_uses(report.uses)}")
        lines += [f"WRONG      {fault}" for fault in report.faults]
    wrong = sum(len(report.faults) for report in reports)
    verdict = "the ledger and the order agree in every span" if not wrong else (
        f"the ledger and the order disagree in {wrong} place{'s' * (wrong > 1)}")
    return "\n".join([*lines, "", f"verdict    {verdict}"])


def _attempts(spans: list[Span]) -> str:
    widths = {span.attempt: span.ranks for span in spans}
    return ", ".join(f"attempt {attempt} on {ranks} rank{'s' * (ranks > 1)}" for attempt, ranks in widths.items())


def _uses(uses: Integers) -> str:
    """How many samples were used how often."""
    times, samples = np.unique(uses, return_counts=True)
    if len(times) > 4:
        return f"from {times[0]:,} to {times[-1]:,} times, {uses.mean():.4g} on average"
    parts = [f"{count:,} samples {'once' if time == 1 else 'never' if time == 0 else f'{time:,} times'}"
             for time, count in zip(times.tolist(), samples.tolist(), strict=True)]
    return f"all {parts[0]}" if len(parts) == 1 else ", ".join(parts)


def main(folder: str) -> int:
    """Prints the report; 1 where something is wrong."""
    from rich.console import Console
    from rich.progress import Progress

    run = RunDir(Path(folder))
    try:
        with Progress(transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task("working out the order", total=None)
            reports = verify(run, lambda done, total: bar.update(task, completed=done, total=total))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report_text(run, reports))
    return int(any(report.faults for report in reports))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
