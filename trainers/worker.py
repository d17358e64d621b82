"""One rank of a run, from joining the process group to leaving it: the table of contents of a rank.

    python -m drumbeat.trainers.worker RUN ATTEMPT      as torchrun starts it
    main(run_dir, attempt)                     as --debug calls it
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch

from drumbeat.configs.errors import UserError, hang
from drumbeat.configs.importing import add_user_path
from drumbeat.configs.load import read
from drumbeat.configs.patience import patience
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.changes import exactness, kept, taken, without_best
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.code_records import with_originals
from drumbeat.configs.run.determinism import operations
from drumbeat.configs.run.disk import wait_for_disk
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, Part, part_of, with_kept
from drumbeat.configs.run.manifest import newest_checkpoint
from drumbeat.configs.run.output import outlive_the_log
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import call_process, node_name
from drumbeat.configs.run.rank_records import Imports
from drumbeat.configs.run.records import AttemptStart, RankError, Saved
from drumbeat.configs.run.replay_records import ReplayRequest
from drumbeat.configs.schema import Config
from drumbeat.configs.secrets import shown
from drumbeat.configs.text_fields import user_name
from drumbeat.data.bar import Bar
from drumbeat.data.loader import error_message
from drumbeat.data.user_code import DamagedSampleError
from drumbeat.trainers.build import (
    Sets,
    build_sets,
    build_task,
    loader_workers,
    place_model,
    use_caches,
)
from drumbeat.trainers.build_training import build_training
from drumbeat.trainers.checkpoints.manager import Checkpoint, Checkpoints
from drumbeat.trainers.determinism import recorded_operations
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.guards import NotFiniteError
from drumbeat.trainers.import_times import given
from drumbeat.trainers.kept_vocabulary import keep_vocabulary
from drumbeat.trainers.kernels import prefer_determinism, set_precision
from drumbeat.trainers.loop import End, Training
from drumbeat.trainers.replaying import lone_rank, replaying
from drumbeat.trainers.sample_counts import check_unchanged, describe_training_set
from drumbeat.trainers.starting_weights import initialize
from drumbeat.trainers.sync_batchnorm import synchronized
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.versions import rank_versions, record_versions
from drumbeat.trainers.watchdog import Watchdog
from drumbeat.trainers.world import World, die_with_agent, join

ERROR_SECONDS = 10.0
"""How long a rank that has failed waits for a disk to take its error."""


class PartError(Exception):
    """The newest checkpoint of a fork is corrupted, and the older one is of a part with another config. The attempt
    fails, and the next one has that config."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        super().__init__(f"the run continues from {checkpoint.path.name if checkpoint else 'its beginning'}, where its "
                         "config was another one: this needs a new attempt")


def main(run_dir: str, attempt_number: int) -> None:
    """Joins, builds, resumes, trains, leaves. An error is written to a file for the launcher, and raised again."""
    run = RunDir(Path(run_dir))
    attempt = run.attempt(attempt_number)
    part = part_of(run, newest_checkpoint(run))
    config = with_kept(read(run.config), part.config) if part else read(run.config)
    topology = JobPlan.require(run.plan).topology
    debug = "RANK" not in os.environ
    wait_for_disk(60 * config.checkpoints.disk_wait_minutes)
    training: Training | None = None
    try:
        prefer_determinism(deterministic=config.deterministic, threads=topology.threads)
        set_precision(config.precision)
        if config.compile:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(run.compiled)
        sets = build_sets(config)
        config = with_facts(config, facts_of(sets.train))
        with Bar() as bar:
            use_caches(config, sets, processes=len(os.sched_getaffinity(0)),
                       progress=lambda name, done, total: bar(f"decoding {name}", done, total))
        # The ranks join after the caches are filled, which may take longer than the join's timeout.
        with (join(topology.device, patience(config)) as world,
              recorded_operations(run, attempt=attempt.number, rank=world.rank)):
            request = ReplayRequest.read(run.replay)
            world = lone_rank(world, request) if request and request.debugs else world
            training = build(run, attempt, config, sets, world, threads=topology.cpus_per_rank, debug=debug,
                             part=part)
            if request:
                training = replaying(training, request, attempt)
            try:
                training.saver.tracker.status(now=True, seconds=training.time_spent.seconds)
                end = training.run()
                finish(run, attempt, config, training, end, part)
            except BaseException as error:  # inside: when this rank leaves the group, the others fail and may kill it
                write_error(attempt, error, step=training.progress.step)
                training.checkpoints.wait_briefly()
                raise
    except BaseException as error:
        if training is None:
            write_error(attempt, error, step=0)
        raise


def build(run: RunDir, attempt: Attempt, config: Config, sets: Sets, world: World, *, threads: int,
          debug: bool, part: Part | None = None) -> Training:
    """Builds all parts of the training, in the state of the newest checkpoint. `part` is that of a fork, whose config
    this is. Raises `PartError`."""
    versions = rank_versions(config.precision, world.device)
    checkpoints = Checkpoints(run, attempt, keep=config.checkpoints.keep, device=world.device, versions=versions,
                              config=kept(config),
                              patience=60 * config.checkpoints.disk_wait_minutes)
    task = build_task(config, sets, world.device)
    checkpoint = agree_on_checkpoint(checkpoints, world)
    if part_of(run, checkpoint.progress.step if checkpoint else -1) != part:
        raise PartError(checkpoint)
    model = place_model(config, world.device, task)
    if config.sync_batchnorm:
        model = synchronized(model, world)
    if checkpoint is None:
        initialize(run, config.initialize, model, world)
    has_best = not checkpoint or checkpoints.has_best(checkpoint.progress)
    fork = Fork.read(run.fork)
    progress = initial_progress(checkpoint, sets, config, world, attempt=attempt.number,
                                fork=fork, has_best=bool(world.broadcast(torch.tensor(int(has_best)))))
    tracker = Tracker(run, attempt, step=progress.step, config_text=shown(run.config.read_text(encoding="utf-8")),
                      device=world.device) if world.is_main else NullTracker()
    monitor = config.evaluation.monitor
    tracker.status(monitor=monitor, best=progress.best.get(monitor), changes=progress.changes,
                   steps_skipped=progress.steps_skipped, micro_batch_size=progress.micro_batch_size)
    checkpoints.on_pause = partial(report_pause, tracker)
    if world.is_main:
        wait_for_disk(60 * config.checkpoints.disk_wait_minutes, checkpoints.on_pause)
    start, imports = AttemptStart.read(attempt.launch), given()  # both None in debug
    if world.is_main and imports:
        report_imports(tracker, imports)
    if world.is_main and checkpoint:
        print(f"resuming from {checkpoint.path.name}", flush=True)
        if text := exactness(progress.changes):
            print(hang("note: ", f"the run is {text}"), flush=True)
    if world.is_main:
        record_versions(attempt, versions, checkpoint)
        keep_vocabulary(run, sets.train)
    return build_training(
        config, sets, world, model, task, checkpoints=checkpoints, checkpoint=checkpoint, progress=progress,
        tracker=tracker, attempt=attempt,
        time_spent=TimeSpent(progress.seconds, began=start.time if start else time.time(),
                             importing=imports.seconds if imports else 0.0),
        workers=loader_workers(config, threads=threads, debug=debug),
        watchdog=Watchdog(attempt, world.rank, math.inf if debug else patience(config),
                          grows=config.watchdog.timeout_minutes is None),
        stop_at=part.until if part else None)


def initial_progress(checkpoint: Checkpoint | None, sets: Sets, config: Config, world: World, *,
                     attempt: int = 0, has_best: bool = True, fork: Fork | None = None) -> Progress:
    """The progress of the checkpoint, with what has changed in the config since, by the `fork` that the run is; if it
    does not have the best weights (`has_best`), without them. Raises `PreflightError`, on rank 0, if the training set
    has changed since, or since the fork's parent."""
    who: dict[str, Any] = {"attempt": attempt, "user": user_name(os.geteuid()), "time": time.time()}
    progress = taken(checkpoint.progress, checkpoint.state.config, config, **who, by="fork" if (
        fork and checkpoint.progress.step == fork.step) else "resume") if checkpoint else Progress(
        data=fork.data if fork else {})
    if not has_best:
        progress = without_best(progress, **who)
    if world.is_main:  # rank 0 saves it, so the others do not have to read the time of each file
        now = describe_training_set(sets.train)
        warning = check_unchanged(progress.data, now, allow_change=config.data.allow_change) if progress.data else ""
        if warning:
            print(f"note: {warning}", flush=True)
        progress = dataclasses.replace(progress, data=now)
    return progress


def agree_on_checkpoint(checkpoints: Checkpoints, world: World) -> Checkpoint | None:
    """The newest good checkpoint. Rank 0 finds it and checks its digests; the other ranks load the same one."""
    found = checkpoints.newest() if world.is_main else None
    step = int(world.broadcast(torch.tensor(found.progress.step if found else -1)))
    if step < 0 or found is not None:
        return found
    return checkpoints.at(step)


def finish(run: RunDir, attempt: Attempt, config: Config, training: Training, end: End, part: Part | None) -> None:
    """Evaluates the test set if the run is finished; then rank 0 writes the result and how the attempt ended."""
    result = training.finish() if end == "finished" else None
    training.checkpoints.close()
    if training.world.is_main:
        if result and not run.is_superseded(attempt.number):
            dataclasses.replace(result, deterministic=config.deterministic,
                                nondeterministic_operations=tuple(operations(run))).write(run.result)
        training.saver.tracker.status(now=True, step=training.progress.step)
        continues = part is not None and end == "stopped" and training.progress.step == part.until
        Saved(state=end, step=training.progress.step, continues=continues).write(attempt.saved)
        print(f"{end} at step {training.progress.step}", flush=True)
    training.saver.tracker.close()
    training.watchdog.close()


def report_imports(tracker: Tracker | NullTracker, imports: Imports) -> None:
    """Puts the imports of this attempt into the heartbeat, and prints them if they were slow."""
    tracker.status(imports=imports)
    if imports.are_slow:
        print(hang("note: ", imports.message), flush=True)


def report_pause(tracker: Tracker | NullTracker, reason: str) -> None:
    """Prints that the run pauses for this reason, or with '' that it continues, and writes the heartbeat."""
    print(f"{'paused' if reason else 'running'}     {reason}", flush=True)
    tracker.status(now=True, pause_reason=reason)


def write_error(attempt: Attempt, error: BaseException, step: int) -> None:
    """Writes the error of this rank for the verdict; of a killed loader worker, rather than of its consequences."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise torch's handler raises the error of the worker here again
    try:
        torch._C._error_if_any_worker_fails()
    except RuntimeError as lost:
        error = lost
    wait_for_disk(ERROR_SECONDS)
    rank = int(os.environ.get("RANK", "0"))
    final = isinstance(error, UserError | NotFiniteError | DamagedSampleError) and not isinstance(error, DamagedError)
    run = attempt.path.parent.parent
    message, trace = (with_originals(text, run) for text in (error_message(error), traceback.format_exc()))
    RankError(rank=rank, node=node_name(), type=type(error).__name__, message=message, step=step, traceback=trace,
              user_error=final).write(attempt.error(rank))


def log_to(path: Path) -> None:
    """Redirects all output of this process, including that of libraries, to its own file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, sys.stdout.fileno())
    os.dup2(handle, sys.stderr.fileno())
    os.close(handle)


if __name__ == "__main__":
    add_user_path()  # the fork server has already done it if it started this process
    die_with_agent()
    call_process(f"rank{os.environ['RANK']}")
    log_to(RunDir(Path(sys.argv[1])).attempt(int(sys.argv[2])).log(int(os.environ["RANK"])))
    outlive_the_log()
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except BaseException:
        # Marked as torch marks tracebacks of several ranks: for the log, and not for the attached terminal.
        lines = traceback.format_exc().splitlines()
        print("\n".join(f"[rank{os.environ['RANK']}]: {line}" for line in lines), file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # a normal exit sends SIGTERM, which loader workers ignore, and waits for them
