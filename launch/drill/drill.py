"""`drumbeat drill CONFIG`: injects faults into a run at random steps, and proves that nothing is lost.

It trains what the config describes three times: without a fault; with injected faults, after which weights (bit for
bit), ledger and curves must equal the first run's; and with a change of the number of ranks, after which the ledger and
the steps of the curves must equal, and the metrics lie in a band; with `virtual_ranks`, all bits must be equal there,
too. All are ordinary runs, started and resumed as a user would, and stay where runs are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from random import Random

from rich.console import Console

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import ROOT, short
from drumbeat.configs.load import read
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import FirstStep, Result, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import end_processes, processes_of
from drumbeat.launch.drill.faults import FAULTS, NotInjectedError
from drumbeat.launch.drill.full_disk import own_mounts
from drumbeat.launch.drill.outcome import Injection, conclusion, exit_code, header, line, summary
from drumbeat.launch.runs.console import PlainConsole
from drumbeat.launch.runs.programs import module
from drumbeat.launch.runs.status import with_final_state

POLL_SECONDS = 0.05
LAST = 0.75
"""No fault is planned for a later part of the run, which might end first: heartbeats are up to a second old."""
FINISHED_BEFORE = "the run finished before"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a run was when a fault was injected."""

    attempt: Attempt
    step: int
    time: float


class Drill:
    """The runs of a drill, all of one config."""

    def __init__(self, words: Sequence[str], runs: Path, *, name: str, seed: int, console: Console) -> None:
        self.words = list(words)
        self.runs = runs
        self.name = name
        self.random = Random(seed)
        self.console = console

    def baseline(self) -> RunDir:
        """The run without faults."""
        run = self._start()
        self._wait_until_finished(run)
        return run

    def with_faults(self, steps: int, count: int, every: float | None = None, only: str = ""
                    ) -> tuple[RunDir, list[Injection]]:
        """The same run with `count` injected faults, of all types or of one, at random steps of `steps`, or one about
        every `every` seconds."""
        types = repeat(only, count) if only else islice(self._shuffled_types(), count)
        last = max(2, int(LAST * steps))
        targets = sorted(self.random.randrange(1, last) for _ in range(count))
        run = self._start(f"launch.restarts={count + 3}")
        injections: list[Injection] = []
        for target, name in zip(targets, types, strict=True):
            reached = self._wait_seconds(run, every * self.random.uniform(0.5, 1.5)) if every else (
                self._wait_for_step(run, target))
            injections.append(self._inject(run, name) if reached else Injection(
                name=name, description=FAULTS[name].description, not_injected=FINISHED_BEFORE))
            self._print(len(injections), injections[-1])
        self._wait_until_finished(run)
        return run, injections

    def with_other_ranks(self, steps: int) -> tuple[RunDir, list[Injection]]:
        """The same run, stopped at a random step and resumed on another number of ranks, and once more to resume on the
        first number."""
        run = self._start()
        plan = JobPlan.require(run.plan).topology
        flag = "--gpus" if plan.device == "cuda" else "--procs"
        before, other = plan.ranks_per_node, plan.ranks_per_node - 1 or 2
        targets = sorted(self.random.randrange(1, max(2, int(LAST * steps))) for _ in range(2))
        changes: list[Injection] = []
        for target, ranks in zip(targets, (other, before), strict=True):
            changes.append(self._change_ranks(run, target, flag, ranks))
            self._print(len(changes), changes[-1])
            if changes[-1].not_injected:
                break
        self._wait_until_finished(run)
        return run, changes

    def _change_ranks(self, run: RunDir, target: int, flag: str, ranks: int) -> Injection:
        """Stops the run at a step and resumes it on `ranks` ranks, or on as many as before if that is refused."""
        change = Injection(name="ranks", description=f"stop, resume on {ranks} rank{'s' * (ranks > 1)}")
        if not self._wait_for_step(run, target):
            return change.failed(FINISHED_BEFORE)
        now = moment(run)
        now.attempt.request_stop("stopped")
        self._wait_until_left(run)
        if with_final_state(View.read(run)).state == "finished":
            return change.failed(FINISHED_BEFORE)
        try:
            self._resume(run, flag, str(ranks))
        except RunError as error:  # there is no second GPU, or no second sample in a batch
            self._resume(run)
            return change.failed(_reason(error))
        return self._recovered(run, change, now)

    def _shuffled_types(self) -> Iterator[str]:
        """All types of faults in a random order, then all again in another."""
        while True:
            yield from self.random.sample(sorted(FAULTS), len(FAULTS))

    def _inject(self, run: RunDir, name: str) -> Injection:
        """Injects a fault and waits until the run trains again."""
        fault, now = FAULTS[name], moment(run)
        injection = Injection(name=name, description=fault.description)
        try:
            difference = fault.inject(run, self.random)
        except NotInjectedError as reason:
            return injection.failed(FINISHED_BEFORE if View.read(run).ended else str(reason))
        now = Moment(attempt=now.attempt, step=now.step, time=time.time())
        if fault.recovery == "none":
            self._wait(run, lambda: any(path.stat().st_mtime > now.time for path in
                                        run.checkpoints.glob("step-*/manifest.json")))
            return injection.done(step=now.step, lost=0, seconds=time.time() - now.time,
                                  verdict="; ".join(filter(None, ["kept running", difference])))
        if fault.recovery == "resume":
            self._wait_until_left(run)
            if with_final_state(View.read(run)).state == "finished":
                return injection.failed("the run finished before it took effect")
            self._resume(run)
        return self._recovered(run, injection, now)

    def _recovered(self, run: RunDir, injection: Injection, then: Moment) -> Injection:
        """Waits for the first step of an attempt after the one that the fault hit."""
        self._wait(run, lambda: newest(run).number > then.attempt.number and newest(run).first_step.exists())
        if newest(run).number == then.attempt.number:
            return injection.failed("the run finished before it took effect")
        first, verdict = FirstStep.read(newest(run).first_step), Verdict.read(then.attempt.verdict)
        return injection.done(step=then.step, lost=max(0, then.step - first.resumed_from) if first else 0,
                              seconds=max(0.0, (first.time if first else time.time()) - then.time),
                              verdict=verdict.message if verdict else "the launcher was killed")

    def _start(self, *more: str) -> RunDir:
        checked = ["--no-preflight"] if (self.runs / self.name).exists() else []  # the first run did the preflight
        self._drumbeat(*self.words, *more, *checked, "--name", self.name)
        return self.latest()

    def latest(self) -> RunDir:
        """The run that was started last."""
        return RunDir((self.runs / self.name / "latest").resolve())

    def _resume(self, run: RunDir, *more: str) -> None:
        self._drumbeat("--resume", str(run.path), *more)

    def _drumbeat(self, *words: str) -> None:
        command = [sys.executable, str(ROOT / "launch" / "run.py"), *words, "--runs", str(self.runs), "--detach"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(Fault(what="the run of the drill cannot be started", given=done.stderr.strip()))

    def _wait(self, run: RunDir, condition: Callable[[], bool]) -> bool:
        """Waits for a condition or the end of the run. Returns whether the condition was met."""
        while not condition():
            if (view := View.read(run)).ended and not processes_of(view):
                return condition()
            time.sleep(POLL_SECONDS)
        return True

    def _wait_for_step(self, run: RunDir, step: int) -> bool:
        """Waits for a step, and then a random part of the second until the next heartbeat."""
        if not self._wait(run, lambda: step_of(run) >= step):
            return False
        beat = View.read(run).heartbeat
        left = beat.eta_seconds if beat and beat.eta_seconds is not None else 1.0
        return self._wait_seconds(run, self.random.random() * min(1.0, left / 4))

    def _wait_seconds(self, run: RunDir, seconds: float) -> bool:
        until = time.monotonic() + seconds
        return self._wait(run, lambda: time.monotonic() >= until) and not View.read(run).ended

    def _wait_until_left(self, run: RunDir) -> None:
        """Waits until no process of the run is left."""
        view = View.read(run)
        while processes_of(view):
            time.sleep(POLL_SECONDS)

    def _wait_until_finished(self, run: RunDir) -> None:
        """Raises `RunError` if the run ends in another way."""
        self._wait_until_left(run)
        view = with_final_state(View.read(run))
        if view.state != "finished":
            raise RunError(Fault(what=f"a run of the drill ended without finishing: {view.state}, {view.verdict}",
                                 where=short(run.path), remedy="Read the logs in its attempts/."))

    def _print(self, number: int, injection: Injection) -> None:
        self.console.print(line(number, injection), soft_wrap=True)


def drill(words: Sequence[str], runs: Path, *, name: str, count: int, seed: int, every: float | None,
          only: str = "") -> int:
    """The whole drill, printed as it proceeds. Returns the exit code (`outcome.exit_code`). Raises `RunError` if a run
    does not finish."""
    console = PlainConsole()
    runner = Drill(words, runs.absolute(), name=name, seed=seed, console=console)
    own_mounts()
    with _ending_on_interrupt(runner):
        began = time.monotonic()
        console.print(f"drill      seed {seed}\n1 of 3     without faults ...")
        baseline = runner.baseline()
        steps = Result.require(baseline.result).steps
        console.print(f"           {steps:,} steps in {time.monotonic() - began:.0f} s\n"
                      f"2 of 3     the same with {count} fault{'s' * (count > 1)} ...\n\n{header('fault')}")
        faulted, injections = runner.with_faults(steps, count, every, only)
        lost = _differences(faulted, baseline, exact=True)
        console.print(f"\n3 of 3     the same with a change of the number of ranks, and back ...\n\n{header('change')}")
        changed, changes = runner.with_other_ranks(steps)
        lost += _differences(changed, baseline, exact=read(baseline.config).virtual_ranks is not None)
    console.print(summary(injections, changes, faulted, runs=(baseline, faulted, changed)))
    console.print("\n".join(conclusion(lost, [*injections, *changes], [baseline, faulted, changed])))
    return exit_code(lost, [*injections, *changes])


def moment(run: RunDir) -> Moment:
    """How far a run is now."""
    return Moment(attempt=newest(run), step=step_of(run), time=time.time())


def newest(run: RunDir) -> Attempt:
    """The newest attempt, or the first one to come."""
    return run.newest_attempt() or run.attempt(0)


def step_of(run: RunDir) -> int:
    """The step of the newest heartbeat."""
    beat = View.read(run).heartbeat
    return beat.step if beat else 0


def _reason(error: RunError) -> str:
    """The first line of what the started program printed."""
    lines = (error.faults[0].given or error.faults[0].what).splitlines()
    return lines[0].removeprefix("error: ")


def _differences(run: RunDir, baseline: RunDir, *, exact: bool) -> list[str]:
    """What differs from the run without faults, each with the run's id."""
    done = module("drumbeat.trainers.commands.compare", str(run.path), str(baseline.path), *["exact"] * exact)
    if done.returncode:
        return [f"{run.id}: it cannot be compared: {done.stderr.strip()[-300:]}"]
    return [f"{run.id}: {difference}" for difference in json.loads(done.stdout)]


@contextmanager
def _ending_on_interrupt(runner: Drill) -> Iterator[None]:
    """Ctrl-C also ends the run that is in progress."""
    try:
        yield
    except KeyboardInterrupt:
        end_processes(partial(processes_of, View.read(runner.latest())))
        raise
