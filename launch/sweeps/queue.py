"""The queue of a sweep on this machine: a process of its own, which outlives the shell, and starts the next trial when
one has ended.

    python -m drumbeat.launch.sweeps.queue FOLDER      what `drumbeat sweep` and `drumbeat resume SWEEP` start

It holds no state: what has ended and what runs is read from the trials' folders, so a queue that was killed continues
where it was when it is started again. Its trials run on meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, UserError
from drumbeat.configs.run.files import read_end
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.sweep import Queue, Sweep, SweepDir, Trial
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.sweeps.asha import promoted, reported
from drumbeat.launch.sweeps.sampler import chosen
from drumbeat.launch.sweeps.trial import start_trial, view_of

POLL_SECONDS = 0.3
START_SECONDS = 60.0
"""Seconds to wait until a new queue has recorded itself."""
RETRIES = 3
"""How often a trial is started again whose launcher was killed, or that could not be started, by one queue."""
BUSY_SECONDS = 5.0
"""Seconds until a trial is tried again if other runs hold the GPUs."""


def start_queue(folder: SweepDir) -> int:
    """Starts the queue, unless it is running, and returns its process id. It receives no signals of this terminal and
    holds none of its files. Raises `LaunchError` if it ends before it has begun."""
    if not folder.queue_is_running():
        with open(folder.log, "a") as log:
            process = subprocess.Popen([sys.executable, "-m", "drumbeat.launch.sweeps.queue", str(folder.path)],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                       env=os.environ | _python_path())
        until = time.monotonic() + START_SECONDS
        while _recorded(folder) != process.pid and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if _recorded(folder) != process.pid and not folder.queue_is_running():
            said = read_end(folder.log, 4096).strip().rpartition("\n")[2]
            raise LaunchError(Fault(what="the sweep's queue could not be started", where=str(folder.path), given=said,
                                    remedy=f"Its output: {folder.log}"))
        process.returncode = process.returncode or 0  # nobody waits for it
    return _recorded(folder)


def _recorded(folder: SweepDir) -> int:
    """The process id of the last queue; 0 if there was none."""
    found = Queue.read(folder.queue)
    return found.pid if found else 0


def _python_path() -> dict[str, str]:
    """The variables with which the queue finds Drumbeat as this process has found it."""
    from drumbeat.configs.importing import HOME

    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), before]))}


@dataclass
class QueueProcess:
    """The queue of one sweep."""

    folder: SweepDir
    tries: Counter[int] = field(default_factory=Counter)
    """How often each trial was started by this process."""
    ended: set[int] = field(default_factory=set)
    """Trials whose end has been seen: they are not looked at again."""
    finished: set[int] = field(default_factory=set)
    """Those of them that nothing can continue."""
    live: set[int] = field(default_factory=set)
    """The trials that occupied a slot at the last look. Others that have ended are not searched for processes."""
    seen: Sweep | None = None
    """The sweep as it was at the last look."""
    wait_until: float = 0.0
    """The monotonic time before which no trial is started, because other runs hold the GPUs."""

    def run(self, lock: int) -> None:
        """Starts trials until all have ended, or the sweep is halted and none runs. Unlocks the queue's file while no
        command can change the sweep: one that adds trials finds either this queue or none."""
        while True:
            while self.step():
                time.sleep(POLL_SECONDS)
            with self.folder.changing() as now:
                if now == self.seen:
                    replace(now, again=()).write(self.folder.record)
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    return

    def step(self) -> bool:
        """Starts as many trials as there are free slots. Returns whether the queue has to stay."""
        self.seen = sweep = self.folder.read()
        running, waiting = self.look(sweep)
        if sweep.halted:
            return bool(running)
        for trial in waiting[:max(0, (sweep.slots or 1) - len(running))]:
            if time.monotonic() >= self.wait_until:
                self.start(trial)
        return bool(running or waiting)

    def look(self, sweep: Sweep) -> tuple[list[int], list[Trial]]:
        """The numbers of the trials that occupy a slot, and the trials that are to be started, in order: those that a
        command wants to be resumed, those whose launcher was killed, those that successive halving promotes, and those
        without a run."""
        running, killed, new, damaged = [], [], [], []
        leaving = {*self.live, *sweep.again, *(promoted(sweep) if sweep.asha else ())}  # which may have processes still
        for trial in sweep.trials:
            if trial.number in self.ended - set(sweep.again):
                continue
            try:
                view = view_of(self.folder, sweep, trial.number)
            except UserError:
                damaged.append(trial.number)
                continue
            if view is not None and (trial.number in leaving or not view.ended) and running_evidence(view):
                running.append(trial.number)
                self.halve(view, trial.number)
            elif view is None:
                new.append(trial.number)
            elif self.was_killed(view):
                killed.append(trial.number)
            elif view.ended:
                self.ended.add(trial.number)
                if view.state == "finished":
                    self.finished.add(trial.number)
        self.live = {*running}
        halved = promoted(self.folder.read(), running) if sweep.asha else []
        wanted = dict.fromkeys([*sweep.again, *killed, *halved, *new])
        excluded = {*running, *damaged, *self.finished, *map(int, sweep.refused)}
        return running, [sweep.trials[number] for number in wanted if number not in excluded]

    def halve(self, view: View, number: int) -> None:
        """Successive halving: records the metric of a running trial at a rung, and stops it there if it is not among
        the best."""
        sweep, beat = self.seen or self.folder.read(), view.heartbeat
        if not sweep.asha or beat is None or view.attempt is None:
            return
        sweep = self.folder.read()
        if reported(sweep, number, beat.step, beat.steps, beat.best) != sweep:
            with self.folder.changing() as sweep:
                sweep = reported(sweep, number, beat.step, beat.steps, beat.best)
                sweep.write(self.folder.record)
        if number in sweep.pruned:
            view.attempt.request_stop("stopped")

    def was_killed(self, view: View) -> bool:
        """Whether a run has ended without a record of its end: its launcher was killed, or the machine failed."""
        return view.state == "failed" and not View.read(view.run).ended and self.tries[_number(view)] < RETRIES

    def start(self, trial: Trial) -> None:
        """Starts a trial, or records why that is impossible; nothing if the sweep has been halted meanwhile."""
        with self.folder.changing() as sweep:  # `stop` waits until the run can be stopped
            if sweep.halted:
                return
            self.ended.discard(trial.number)
            if sweep.sampler and not trial.values:
                trial = chosen(self.folder, sweep, trial.number, self.results(sweep))
                trials = (*sweep.trials[:trial.number], trial, *sweep.trials[trial.number + 1:])
                sweep = replace(sweep, trials=trials)
                sweep.write(self.folder.record)
            refused = self._start(sweep, trial)
            now = replace(sweep, again=tuple(one for one in sweep.again if one != trial.number), pruned=tuple(
                one for one in sweep.pruned if one != trial.number), refused=sweep.refused | refused)
            if now != sweep:
                now.write(self.folder.record)

    def results(self, sweep: Sweep) -> dict[int, float | None]:
        """The metrics of the trials that have ended; None without one."""
        views = {number: view_of(self.folder, sweep, number) for number in self.ended}
        return {number: view.heartbeat.best if view.heartbeat else None for number, view in views.items() if view}

    def _start(self, sweep: Sweep, trial: Trial) -> dict[str, str]:
        """Starts a trial. Returns why that is impossible, by its number."""
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} trial {trial.number}: {' '.join(trial.assignments)}", flush=True)
        self.tries[trial.number] += 1
        try:
            start_trial(self.folder, sweep, trial)
        except LaunchError as error:
            print(error, flush=True)
            if error.faults[0].what != "not enough free GPUs":
                return {str(trial.number): str(error)}
            self.tries[trial.number] -= 1
            self.wait_until = time.monotonic() + BUSY_SECONDS
        except UserError as error:
            print(error, flush=True)
            return {str(trial.number): str(error)}
        except Exception as error:
            traceback.print_exc()
            if self.tries[trial.number] > RETRIES:
                return {str(trial.number): f"{error!r:.500}"}
        return {}


def _number(view: View) -> int:
    return int(view.run.id.rpartition("-")[2])


def main(path: str) -> int:
    """Runs the queue of a sweep; nothing if it is running already."""
    folder = SweepDir(Path(path))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir(JobPlan.require(folder.plan).folder)
    with folder.queue_lock() as lock:
        if lock is not None:
            Queue().write(folder.queue)
            QueueProcess(folder).run(lock)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
