"""The folder of a replay: a run of its own, which begins at a checkpoint of another run and changes nothing of it.

    runs/.replays/<random>/<name>/<time>-<id>/
        config.yaml      the run's config as it was at that step
        plan.json        as many ranks, on this machine
        code             the run's copy of the code
        checkpoints/     the checkpoints that the replay needs: hard links, if that is possible
        replay.json      how far it computes
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import ROOT, short
from drumbeat.configs.load import read, reload
from drumbeat.configs.run.changes import kept
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, kept_before, with_kept
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.manifest import checkpoint_path, damage, newest_state, progress_at, saved_steps
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.replay_records import ReplayRequest
from drumbeat.configs.run.step_log import StepLog
from drumbeat.configs.run.view import View
from drumbeat.configs.site import Site
from drumbeat.launch.backends.backend import backend_of, running_evidence
from drumbeat.launch.plan.snapshot import Snapshot, copy_snapshot, newest_code


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The steps of a run that are computed again."""

    run: RunDir
    start: int
    """The step of the checkpoint; 0 for the start of the run."""
    step: int
    """The last step."""
    ranks: int

    @property
    def text(self) -> str:
        """Which steps, from where, and on how many ranks, as text."""
        steps = f"step {self.step:,}" if self.step == self.start + 1 else f"steps {self.start + 1:,} to {self.step:,}"
        start = f"the checkpoint at step {self.start:,}" if self.start else "the start of the run"
        return f"{steps} from {start}, on {self.ranks} rank{'s' * (self.ranks > 1)}"


def interval(run: RunDir, step: int, log: StepLog, *, beyond: bool = False) -> Interval:
    """The steps up to `step`, from the nearest checkpoint before it that is intact. With `beyond`, the step may be one
    that is not in the log. Raises `RunError` if the run is running, or if the steps cannot be computed again."""
    view = View.read(run)
    if evidence := running_evidence(view):
        raise RunError(Fault(what=f"run {run.id} is still running: its checkpoints come and go", where=short(run.path),
                             given=evidence, remedy="Wait until it ends, or stop it: drumbeat stop RUN"))
    if not log.last:
        raise RunError(Fault(what="the run has no step log", where=short(run.attempts),
                             given="no attempts/*/steps.bin with a step",
                             remedy="The log is written with the points of the curves and with checkpoints. An older "
                                    "Drumbeat wrote none."))
    if not 1 <= step <= log.last and not (beyond and step > log.last):
        raise RunError(Fault(what=f"there is no step {step:,} in the run's log", where=short(run.path),
                             given=f"--step {step}", remedy=f"Choose one from 1 to {log.last:,}."))
    whole = (one for one in saved_steps(run) if one < step and not damage(checkpoint_path(run, one)))
    start = next(whole, 0)
    attempts = [log.attempt_of(min(one, log.last)) for one in range(start + 1, step + 1)]
    if (newest := attempts[-1]) is None:
        raise RunError(Fault(what=f"step {step:,} is not in the run's log", where=short(run.path),
                             given=f"--step {step}", remedy=_logged_steps(run, log)))
    widths = {attempt.ranks for attempt in attempts if attempt}
    state = newest_state(run)
    changes = state.progress.changes if state else ()
    between = [change for change in changes if start < change.step < step and change.old != change.new]
    if (len(widths) > 1 and read(run.config).virtual_ranks is None) or between:
        what = f"{between[0].key} has changed" if between else "the number of ranks has changed"
        raise RunError(Fault(what=f"{what} between steps {start:,} and {step:,}, and the checkpoint at the change is "
                             "gone", where=short(run.checkpoints), given=f"--step {step}",
                             remedy="Choose a step before the change, or one after a later checkpoint: drumbeat "
                                    "checkpoints RUN"))
    return Interval(run=run, start=start, step=step, ranks=newest.ranks)


def _logged_steps(run: RunDir, log: StepLog) -> str:
    """What to do about a step that is not in the log of a run: a fork does not have the steps before its start."""
    text = f"Choose one from {next(log.steps(), log.last):,} to {log.last:,}"
    fork = Fork.read(run.fork)
    return f"{text}, or replay that of the run that it was forked from: {fork.parent}" if fork else f"{text}."


def _config(run: RunDir, step: int) -> str:
    """The config with which a run took a step, as YAML: what resumes have changed there and later is undone."""
    own, state, fork = reload(run.config), newest_state(run), Fork.read(run.fork)
    then = kept(own.config)
    if fork and (part := fork.part(step - 1)):
        then = part.config
    elif state and step <= state.progress.step:
        then = kept_before(own.config, state, step)
    if then == kept(own.config):
        return run.config.read_text(encoding="utf-8")
    return reload(run.config, base=with_kept(own.config, then)).as_yaml()


@contextmanager
def scratch(work: Interval, *, debugs: bool = False, rank: int = 0, begun: RunDir | None = None) -> Iterator[RunDir]:
    """The folder of a replay, which is removed in the end, and kept after an error. With `debugs`, one process computes
    the part of `rank`, from the checkpoint before the last step: if need be, that of the replay in the folder
    `begun`."""
    run = RunDir.new(work.run.all_runs / ".replays" / secrets.token_hex(4), work.run.path.parent.name)
    run.checkpoints.mkdir(parents=True)
    with changing(RunDir(run.all_runs), "replay"):  # `drumbeat clean` removes such folders once nobody has them locked
        _prepare(run, work, ReplayRequest(step=work.step, debugs=debugs, rank=rank, ranks=work.ranks), begun)
        try:
            yield run
        finally:
            if running_evidence(view := View.read(run)):
                backend_of(view.backend).end(view)
        shutil.rmtree(run.all_runs, ignore_errors=True)
    with suppress(OSError):  # there are other replays
        run.all_runs.parent.rmdir()


def _prepare(run: RunDir, work: Interval, request: ReplayRequest, begun: RunDir | None) -> None:
    """Writes the files that a replay starts with into its folder."""
    write_text(run.config, _config(work.run, work.step), private=True)
    plan = JobPlan.require(work.run.plan)
    topology = dataclasses.replace(plan.topology, nodes=1, ranks_per_node=1 if request.debugs else work.ranks,
                                   min_nodes=None)
    plan = dataclasses.replace(plan, run_dir=str(run.path), backend="local", topology=topology, allocation=None,
                               site=Site())
    if code := newest_code(work.run.path):
        copy_snapshot(code, run.path / "code")
        plan = Snapshot.require(code / "snapshot.json").relocate(plan, run.path / "code")
    plan.write(run.plan)
    request.write(run.replay)
    for step in _needed(work, begun):
        home = begun if begun and checkpoint_path(begun, step).exists() else work.run
        shutil.copytree(checkpoint_path(home, step), checkpoint_path(run, step), copy_function=_link)
    run.write_status("stopped", attempt=-1)


def _needed(work: Interval, begun: RunDir | None) -> set[int]:
    """The steps of the checkpoints from which a replay starts, and whose weights are the best ones then."""
    start = work.step - 1 if begun else work.start
    home = begun or work.run
    progress = progress_at(checkpoint_path(home, start)) if start else None
    best = progress.best.get("step") if progress else None
    return {step for step in (start, best) if step and any(
        checkpoint_path(one, step).exists() for one in (home, work.run))}


def _link(source: str, target: str) -> None:
    """Links a file, which neither of the two runs ever writes again, or copies it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def compute(run: RunDir) -> StepLog:
    """Runs a replay, and returns its log. Raises `RunError` if it does not get as far as it should."""
    plan = JobPlan.require(run.plan)
    if plan.topology.world_size == 1:
        command, variables = _in_one_process(run), plan.environment
    else:
        command, variables = [sys.executable, str(ROOT / "launch" / "run.py"), "--resume", str(run.path),
                              "--no-preflight", "launch.restarts=0"], {}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    log, step = StepLog.read(run), ReplayRequest.require(run.replay).step
    if log.last < step:
        raise RunError(Fault(what=f"the replay did not reach step {step:,}", where=short(run.path),
                             given=(done.stderr.strip() or done.stdout.strip())[-2000:],
                             remedy="Its folder is kept: read the logs in its attempts/."))
    return log


def debug(run: RunDir) -> int:
    """Runs a replay in one process on this terminal, which stops in pdb. Returns its exit code."""
    return subprocess.run(_in_one_process(run), env=os.environ | JobPlan.require(run.plan).environment,
                          check=False).returncode


def _in_one_process(run: RunDir) -> list[str]:
    """The command that trains a run in its own process."""
    return [sys.executable, "-m", "drumbeat.configs.importing", "drumbeat.launch.replay.in_process", str(run.path)]
