"""`drumbeat drill CONFIG`: hurts a run in every way we know, at random steps, and proves that nothing was lost.

It trains what the config describes straight through, then again under blows, and compares weights (bit for bit),
ledger and curves; then once more with a change of the number of ranks, after which the ledger and the steps of the
curves must agree and the metrics lie in a band. All are ordinary runs, started and resumed as a user would, and stay
where runs are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from random import Random

from rich.console import Console

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import ROOT, short
from drumbeat.configs.run.determinism import claim
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import FirstStep, Result, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import end_processes, processes_of
from drumbeat.launch.drill.faults import BLOWS
from drumbeat.launch.runs.goodput import goodput, text, useful
from drumbeat.launch.runs.programs import module
from drumbeat.launch.runs.status import judged

LOOK_SECONDS = 0.05
LAST = 0.9
"""No blow is aimed at a later part of the run: what is told of a step is a second old, and it might have ended."""
MISSED = "there was nothing to strike"


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A blow, and how the run came back."""

    words: str
    step: int
    """The newest that the run had told of."""
    lost: int
    """Steps that had to be taken again, as far as the run had told of them."""
    seconds: float
    """From the blow to the next step; to the checkpoint's completion where no step was missed."""
    verdict: str


class Drill:
    """The runs of a drill, all of one config."""

    def __init__(self, words: Sequence[str], runs: Path, *, name: str, seed: int, console: Console) -> None:
        self.words = list(words)
        self.runs = runs
        self.name = name
        self.random = Random(seed)
        self.console = console

    def straight(self) -> RunDir:
        """The run that nobody disturbs."""
        run = self._start()
        self._until_over(run)
        return run

    def under_blows(self, steps: int, kills: int, every: float | None, only: str = "") -> tuple[RunDir, list[Struck]]:
        """The same run under so many blows, of all kinds or of one, at random steps of `steps`, or one in about `every`
        seconds."""
        kinds = repeat(only, kills) if only else islice(self._kinds(), kills)
        last = max(2, int(LAST * steps))
        targets = sorted(self.random.randrange(1, last) for _ in range(kills))
        run = self._start(f"launch.restarts={kills + 3}")
        done: list[Struck] = []
        for target, kind in zip(targets, kinds, strict=True):
            if not (self._until_time(run, every * self.random.uniform(0.5, 1.5)) if every
                    else self._until_step(run, target)):
                break
            if (struck := self._strike(run, kind)) is not None:
                done.append(struck)
                self._tell(len(done), struck)
        self._until_over(run)
        return run, done

    def with_other_ranks(self, steps: int) -> tuple[RunDir, list[Struck]]:
        """The same run, stopped at a random step to go on with other ranks, and again to go on as it began."""
        run = self._start()
        plan = JobPlan.require(run.plan).topology
        flag = "--gpus" if plan.device == "cuda" else "--procs"
        before, other = plan.ranks_per_node, plan.ranks_per_node - 1 or 2
        targets = sorted(self.random.randrange(1, max(2, steps)) for _ in range(2))
        done: list[Struck] = []
        for target, ranks in zip(targets, (other, before), strict=True):
            if not self._until_step(run, target):
                break
            attempt, step, began = newest(run), step_of(run), time.time()
            attempt.request_stop("stopped")
            self._until_left(run)
            if judged(View.read(run)).state == "finished":
                break
            try:
                self._resume(run, flag, str(ranks))
            except RunError as refusal:  # there is no second GPU, or no second sample in a batch
                self.console.print(f"     not with {ranks} ranks:\n{refusal}")
                self._resume(run)
                break
            done.append(self._back(run, f"stop, go on with {ranks} rank{'s' * (ranks > 1)}", attempt, step, began))
            self._tell(len(done), done[-1])
        self._until_over(run)
        return run, done

    def _kinds(self) -> Iterator[str]:
        """All kinds of blows in a random order, then all again in another."""
        while True:
            yield from self.random.sample(sorted(BLOWS), len(BLOWS))

    def _strike(self, run: RunDir, kind: str) -> Struck | None:
        """One blow, and the run back at work; None where there was nothing to strike."""
        blow = BLOWS[kind]
        attempt, step = newest(run), step_of(run)
        if not blow.strike(run, self.random):
            self.console.print(f"     {blow.words}: {MISSED}")
            return None
        began = time.time()
        if blow.after == "same attempt":
            self._until(run, lambda: any(path.stat().st_mtime > began for path in
                                         run.checkpoints.glob("step-*/manifest.json")))
            return Struck(words=blow.words, step=step, lost=0, seconds=time.time() - began, verdict="went on")
        if blow.after == "resume":
            self._until_left(run)
            if judged(View.read(run)).state == "finished":  # just so: it came too late
                return Struck(words=blow.words, step=step, lost=0, seconds=0.0, verdict="the run had finished")
            self._resume(run)
        return self._back(run, blow.words, attempt, step, began)

    def _back(self, run: RunDir, words: str, struck: Attempt, step: int, began: float) -> Struck:
        """Waits for the first step of the attempt after the one that was struck, or of a later one."""
        self._until(run, lambda: newest(run).number > struck.number and newest(run).first_step.exists())
        first, verdict = FirstStep.read(newest(run).first_step), Verdict.read(struck.verdict)
        return Struck(words=words, step=step, lost=max(0, step - first.resumed_from) if first else 0,
                      seconds=max(0.0, (first.time if first else time.time()) - began),
                      verdict=verdict.message if verdict else "the launcher was killed")

    def _start(self, *more: str) -> RunDir:
        looked = ["--no-preflight"] if (self.runs / self.name).exists() else []  # the first run has had it
        self._drumbeat(*self.words, *more, *looked, "--name", self.name)
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

    def _until(self, run: RunDir, reached: Callable[[], bool]) -> bool:
        """Waits; whether it came to that before the run ended."""
        while not reached():
            if (view := View.read(run)).ended and not processes_of(view):
                return reached()
            time.sleep(LOOK_SECONDS)
        return True

    def _until_step(self, run: RunDir, step: int) -> bool:
        """Waits for a step, and a random part of the second in which the run tells of the next."""
        return self._until(run, lambda: step_of(run) >= step) and self._until_time(run, self.random.random())

    def _until_time(self, run: RunDir, seconds: float) -> bool:
        until = time.monotonic() + seconds
        return self._until(run, lambda: time.monotonic() >= until)

    def _until_left(self, run: RunDir) -> None:
        """Waits until nothing of a run is at work any more."""
        view = View.read(run)
        while processes_of(view):
            time.sleep(LOOK_SECONDS)

    def _until_over(self, run: RunDir) -> None:
        self._until_left(run)
        view = judged(View.read(run))
        if view.state != "finished":
            raise RunError(Fault(what=f"the run came to nothing: {view.state}, {view.verdict}",
                                 where=short(run.path), remedy="Look at the logs in its attempts/."))

    def _tell(self, number: int, struck: Struck) -> None:
        self.console.print(f"{number:>4}  {struck.step:>7,}  {struck.words:<30} {struck.lost:>5}  "
                           f"{struck.seconds:>6.1f} s  {struck.verdict}", overflow="ellipsis", no_wrap=True)


HEADER = f"{'':>4}  {'step':>7}  {'blow':<30} {'lost':>5}  {'back in':>8}  verdict"


def drill(words: Sequence[str], runs: Path, *, name: str, kills: int, seed: int, every: float | None) -> int:
    """The whole drill, told as it goes; 0 where nothing was lost, else 1. Raises `RunError` where a run came to
    nothing."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    here = Drill(words, runs.absolute(), name=name, seed=seed, console=console)
    with _ending_on_interrupt(here):
        began = time.monotonic()
        console.print(f"drill      seed {seed}\n1 of 3     straight through ...")
        straight = here.straight()
        steps = Result.require(straight.result).steps
        console.print(f"           {steps:,} steps in {time.monotonic() - began:.0f} s\n"
                      f"2 of 3     the same under {kills} blows ...\n\n{HEADER}")
        hurt, blows = here.under_blows(steps, kills, every)
        lost = _compare(hurt, straight, exact=True)
        console.print(f"\n3 of 3     the same with a change of ranks, and back ...\n\n{HEADER}")
        wide, changes = here.with_other_ranks(steps)
        lost += _compare(wide, straight, exact=False)
    spent = goodput(View.read(hurt))
    seconds = sorted(blow.seconds for blow in blows) or [0.0]
    rows = [("blows", f"{len(blows)} of {kills}, and {len(changes)} changes of ranks"),
            ("lost work", f"{sum(blow.lost for blow in blows):,} steps, taken again"),
            ("back in", f"{seconds[len(seconds) // 2]:.1f} s (median), {seconds[-1]:.1f} s (longest)"),
            ("time", text(spent)),
            ("effective", f"{useful(spent):.2f} of the time went into steps and evaluations that count"),
            ("runs", ", ".join(short(run.path) for run in (straight, hurt, wide)))]
    console.print("\n" + "\n".join(f"{name:<11}{words}" for name, words in rows), soft_wrap=True)
    console.print("\n".join(conclusion(lost, [straight, hurt, wide])), soft_wrap=True)
    return 1 if lost else 0


def conclusion(lost: Sequence[str], runs: Sequence[RunDir]) -> list[str]:
    """What is lost, or that nothing is; and why the runs may give different bits even so, where they may."""
    notes = dict.fromkeys(filter(None, map(claim, runs)))
    return [*(f"LOST       {words}" for words in lost),
            *([] if lost else ["nothing lost: the same weights bit for bit, the same samples, each step once in the "
                               "curves"]),
            *(f"note       {words}" for words in notes)]


def newest(run: RunDir) -> Attempt:
    """The newest attempt, or what will be the first."""
    return run.newest_attempt() or run.attempt(0)


def step_of(run: RunDir) -> int:
    """The newest step that the run has told of."""
    beat = View.read(run).heartbeat
    return beat.step if beat else 0


def _compare(run: RunDir, straight: RunDir, *, exact: bool) -> list[str]:
    """What differs, each with the run's id."""
    done = module("drumbeat.trainers.commands.compare", str(run.path), str(straight.path), *["exact"] * exact)
    if done.returncode:
        return [f"{run.id}: it cannot be compared: {done.stderr.strip()[-300:]}"]
    return [f"{run.id}: {fault}" for fault in json.loads(done.stdout)]


@contextmanager
def _ending_on_interrupt(here: Drill) -> Iterator[None]:
    """Ctrl-C ends the run that is at work, too."""
    try:
        yield
    except KeyboardInterrupt:
        end_processes(View.read(here.latest()))
        raise
