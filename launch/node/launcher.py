"""The node launcher: what submitit runs, once on each node, for a run on this machine as for one on a cluster.

It is the only process that reacts to signals, and the first node's alone acts on them. It owns torchrun: starts it,
asks the ranks to stop by a marker in the run folder, waits for their save, ends what is left, and then goes on as the
first node's launcher decides: leave, start the next attempt in place, or queue the job again. The launchers of a job
speak to each other through the attempt's folder only. No torch here.

    claim -> meet -> supervise torchrun -> down -> verdict -> leave | restart | requeue | give up

Where a launcher itself is killed, the job's script starts those of all nodes again (`launch/backends`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import end_with
from drumbeat.configs.run.records import AttemptStart, Next, NodeDown, Status, StopRequest, Verdict
from drumbeat.launch.attempts.hang import FLIGHT_RECORDER
from drumbeat.launch.attempts.processes import become_subreaper
from drumbeat.launch.attempts.verdict import TERMINATED, TIME_LIMIT, judge
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.node.handover import AGAIN, CONTINUE, drop_successor, look_back, queue_successor, take_over
from drumbeat.launch.node.handshake import meet
from drumbeat.launch.node.rendezvous import LOOPBACK, free_port, network_variables, own_address
from drumbeat.launch.node.torchrun import Agents
from drumbeat.launch.plan.gpu_locks import hold_gpus
from drumbeat.launch.plan.job import torchrun_command
from drumbeat.launch.slurm.grace import grace_warning, lead_seconds
from drumbeat.launch.slurm.job import SlurmJob, job_identity, job_name, ours

POLL = 0.2
"""Seconds between two looks. A loop, because `Popen.poll` inside a signal handler sees nothing while `wait` runs."""
DOWN_PATIENCE, STOP_PATIENCE = 60.0, 10.0
"""Seconds the first node waits for the others to be down before it judges without them: after a failure, and after a
stop, when SLURM may be counting."""
FIRST_PATIENCE = 1800.0
"""Seconds the others wait for the first one. SLURM ends them at once when it dies (srun --kill-on-bad-exit), and it may
be busy with a long last save; so this is for what nobody has thought of."""
LEAVE_PATIENCE = 60.0
"""Seconds between the last save and the end of all ranks."""
PLAN_PATIENCE = 60.0
"""Seconds to wait for the run's files: on another machine's disk they may appear late."""

T = TypeVar("T")


class RunFailedError(Exception):
    """The run was given up. Raised so that SLURM, too, calls the job failed."""


class Node:
    """What runs on each node of the run in this folder; `launch/backends/task.py` has submitit call it."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Runs attempts on this node until the run ends or leaves the allocation. Raises `RunFailedError`."""
        run = RunDir(Path(self.run_dir))
        for unfinished in run.submitit.glob("*.save_tmp"):
            unfinished.unlink(missing_ok=True)  # or submitit would refuse to write its result
        wait_until(run.plan.exists, PLAN_PATIENCE)
        plan, before = JobPlan.require(run.plan), run.newest_number()
        node, slurm_job = 0, None
        if backend_of(plan.where).on_slurm:
            wait_until(run.job.exists, PLAN_PATIENCE)
            node, slurm_job = int(os.environ["SLURM_NODEID"]), SlurmJob.here(users_own=plan.allocation is not None)
            if not take_over(run, slurm_job, first=node == 0):
                print("the run has ended, or goes on in another job: nothing to do", flush=True)
                return
        else:
            end_with(os.getppid(), signal.SIGTERM)  # submitit's controller
        try:
            with hold_gpus(plan) as plan:
                after = Launcher(run, plan, node=node, slurm_job=slurm_job).run_attempts()
        except UserError as error:  # another run has taken the GPUs since this one was started
            words = [error.faults[0].what, *error.faults[0].given.splitlines()]
            run.write_status("failed", attempt=before, verdict="; ".join(words))
            raise RunFailedError("; ".join(words)) from None
        except Exception as error:
            if node == 0:
                run.write_status("failed", attempt=max(before, run.newest_number()),
                                 verdict=f"the node launcher failed: {type(error).__name__}: {error}")
            raise
        if after == "give up":
            status = Status.read(run.status)
            raise RunFailedError(status.verdict if status else "")


@dataclass
class Launcher:
    """One node's part of a job."""

    run: RunDir
    plan: JobPlan
    node: int = 0
    slurm_job: SlurmJob | None = None
    """Where SLURM runs us."""
    told: str = field(default="", init=False)
    """Why to stop: set by a signal handler, acted upon by the main loop of the first node."""
    end: float = field(default=float("inf"), init=False)
    """When the job's time is up, as far as the first node has to know."""
    agents: Agents | None = field(default=None, init=False)
    """What runs torchrun, once it was needed."""
    joined: int = field(default=-1, init=False)
    """The last attempt this launcher took part in."""
    trouble: str = field(default="", init=False)
    """Why this node could not even begin the attempt."""
    successor: bool = field(default=False, init=False)
    """Whether a job is queued that goes on with the run if this one ends without success; or, where we are in a
    container without SLURM's programs, whether the job's script can have this one queued again."""

    def run_attempts(self) -> Next:
        """Attempt after attempt, until the first node's launcher says to leave, or where it has ended already."""
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):  # a site may have its own idea of --signal
            signal.signal(number, self.hear)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # SLURM sends it ahead of SIGTERM; submitit would log it
        become_subreaper()
        if self.slurm_job:
            before = look_back(self.run, self.plan, self.slurm_job, first=self.node == 0)
            if before and before.next in ("leave", "give up"):
                if self.node == 0:
                    drop_successor(self.run)
                return before.next
        if self.slurm_job and self.node == 0:
            self.end = self.slurm_job.end_time()
            if warning := grace_warning(self.run, self.slurm_job.look().get("Partition", "")):
                print(f"warning: {warning}", flush=True)
            if self.slurm_job.needs_successor():
                refusal = queue_successor(self.run, self.plan, self.slurm_job)
                self.successor = not refusal or bool(self.plan.site.prefix)
                if not self.successor:
                    print(f"warning: SLURM would not queue this job again, nor take another for it: {refusal}",
                          flush=True)
        while True:
            attempt = self.claim() if self.node == 0 else self.wait_for("the next attempt", self.claimed)
            self.joined, self.trouble = attempt.number, ""
            code = self.supervise(attempt)
            NodeDown(code=code, host=own_address(), words=self.trouble).write(attempt.down(self.node))
            verdict = self.decide(attempt) if self.node == 0 else (
                self.wait_for("the verdict", partial(Verdict.read, attempt.verdict)))
            if verdict.next == "requeue":  # at once, because SLURM waits for us; past submitit, which calls a job done
                os._exit(CONTINUE if self.successor else 0)
            if verdict.next != "restart":
                if self.node == 0:
                    drop_successor(self.run)
                if self.agents:
                    self.agents.close()
                return verdict.next

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: sets a flag and nothing else. The first reason stands."""
        self.told = self.told or (TERMINATED if number == signal.SIGTERM else TIME_LIMIT)

    def claim(self) -> Attempt:
        """The first node: takes the next attempt, and tells the others where its ranks will meet."""
        before = self.run.newest_attempt()
        attempt = self.run.claim_attempt()
        self.joined = attempt.number
        jobs = {job_name(), self.slurm_job.after if self.slurm_job else ""} - {""}
        asked = StopRequest.read(before.stop) if before and any(ours(before, job) for job in jobs) else None
        if asked and asked.reason == "stopped":
            self.told = "stopped"  # asked for when that attempt was already over
        address = own_address() if self.plan.topology.nodes > 1 else LOOPBACK
        AttemptStart(job=job_identity(), address=address, port=free_port()).write(attempt.launch)
        last = Verdict.read(before.verdict) if before else None  # which may be why there is another attempt
        self.run.write_status("running", attempt=attempt.number,
                              verdict=last.words if last and last.next in ("restart", "requeue") else "")
        return attempt

    def claimed(self) -> Attempt | None:
        """The other nodes: the attempt that the first one claimed for this start of this job, after our last one.
        Raises `RunFailedError` where SLURM ends us meanwhile, because the first one has left."""
        if self.told == TERMINATED:
            raise RunFailedError(f"node {self.node}: ended while it waited for the first node's launcher")
        newest = self.run.newest_attempt()
        last = newest.number if newest else -1
        for number in range(last, max(self.joined, last - 10), -1):
            attempt = self.run.attempt(number)
            if ours(attempt, job_identity()):
                return attempt
        return None

    def supervise(self, attempt: Attempt) -> int | None:
        """Meets the other nodes, runs torchrun to its end and returns its exit code; None where it was ended, or not
        begun, because of another node or a stop."""
        over = partial(self.called_off, attempt)
        if self.plan.topology.nodes > 1 and not over():
            self.trouble = meet(attempt, self.node, self.plan.topology.nodes, over)
        if self.trouble or over():
            return 1 if self.trouble else None
        lead = lead_seconds(self.run, self.plan.site.signal_seconds, self.plan.site.time_minutes)
        agents = self.start(attempt)
        saved_at = float("inf")
        try:
            while (code := agents.poll()) is None:
                now = time.time()
                if self.node == 0 and (self.told or now > self.end - lead):
                    attempt.ask_to_stop(self.told or TIME_LIMIT)
                if attempt.saved.exists():
                    saved_at = min(saved_at, now)
                if now > min(self.end, saved_at + LEAVE_PATIENCE) or self.is_over(attempt):
                    return None
                time.sleep(POLL)
            return code
        finally:
            if left := agents.end():
                print(f"processes {left} do not end: they wait for a disk or a driver", flush=True)

    def called_off(self, attempt: Attempt) -> bool:
        """Whether the attempt is to end before its ranks begin."""
        if self.node == 0 and self.told:
            attempt.ask_to_stop(self.told)
        return attempt.stop.exists() or self.is_over(attempt)

    def is_over(self, attempt: Attempt) -> bool:
        """Whether another node's torchrun has failed, or another job has taken over the run."""
        newest = self.run.newest_attempt()
        nodes = map(NodeDown.read, attempt.path.glob("node*.down.json"))
        return newest != attempt or any(down and down.code for down in nodes)

    def start(self, attempt: Attempt) -> Agents:
        """Has torchrun started."""
        launch = AttemptStart.require(attempt.launch)
        command = torchrun_command(self.plan, attempt=str(attempt.number), node=str(self.node),
                                   address=launch.address, port=str(launch.port))
        environment = {
            "PET_SIGNALS_TO_HANDLE": "SIGQUIT",  # so that torchrun leaves SIGTERM ignored, for its ranks too
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1",  # from the SIGTERM that ranks do not hear to SIGKILL
            "TORCH_FR_DUMP_TEMP_FILE": str(attempt.path / FLIGHT_RECORDER),
        } | network_variables(launch.address, os.environ)
        if self.agents is None or not self.agents.alive:
            self.agents = Agents(self.plan, attempt, self.node)
        words = command[3:]  # without "python -m torch.distributed.run", which the server has imported
        self.agents.start(words, environment, attempt.node_log(self.node))
        return self.agents

    def decide(self, attempt: Attempt) -> Verdict:
        """The first node: what the attempt came to and what is next, written down for the others and for `status`."""
        until = min(self.end, time.time() + (STOP_PATIENCE if attempt.stop.exists() else DOWN_PATIENCE))
        nodes = range(self.plan.topology.nodes)
        while not (all_down := all(attempt.down(node).exists() for node in nodes)) and time.time() < until:
            time.sleep(POLL)
        fate = self.slurm_job.fate() if self.slurm_job and attempt.stop.exists() else ""
        if fate == "terminated" and not all_down:
            os._exit(AGAIN)  # another node's launcher has died, so SLURM ends this step: the next one tells of it
        verdict = judge(self.run, attempt, restarts=self.plan.restarts, slurm=fate,
                        queue=not (self.slurm_job and self.slurm_job.users_own))
        if verdict.next == "requeue" and (refusal := self.queue_again()):
            verdict = replace(verdict, next="leave", words=f"{verdict.words}; SLURM does not queue it again: {refusal}")
        if verdict.outcome != "superseded":
            self.run.write_status(verdict.state, attempt=attempt.number, verdict=verdict.words)
        verdict.write(attempt.verdict)
        return verdict

    def queue_again(self) -> str:
        """The first node: has the job queued again, or sees to another that follows it. Returns '', or why neither."""
        assert self.slurm_job
        if self.successor or not (refusal := self.slurm_job.requeue()):
            return ""
        refused = queue_successor(self.run, self.plan, self.slurm_job)
        self.successor = not refused
        return refused and f"{refusal}; nor does it take another job: {refused}"

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        """The other nodes: something the first one writes. Raises `RunFailedError` where it never comes."""
        if (found := wait_until(look, FIRST_PATIENCE)) is not None:
            return found
        raise RunFailedError(f"node {self.node}: the first node's launcher is gone; waited for {what} in vain")


def wait_until(look: Callable[[], T | None], seconds: float) -> T | None:
    """Looks until something is there; what is there in the end."""
    until = time.time() + seconds
    while not (found := look()) and time.time() < until:
        time.sleep(POLL)
    return found
