"""The node launcher, one process on each node, for local runs and on a cluster (`node/node.py` starts it).

It is the only process that reacts to signals, and only the first node's launcher acts on them. It starts torchrun, asks
the ranks to stop by a file in the run folder, waits for their checkpoint, and kills what is left. Then it does what the
first node's launcher decides: leave, start the next attempt in place, or requeue the job. The launchers of a job
communicate only through the attempt's folder. No torch here.
It is a state machine: `node/states.py` defines its states, their outcomes, and the table of transitions.
If a launcher itself is killed, the job's script restarts those of all nodes (`launch/backends`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import TypeVar

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.records import MORE_NODES, Next, NodeDown, StopRequest, Verdict
from drumbeat.launch.attempts.processes import become_subreaper
from drumbeat.launch.attempts.verdict import TERMINATED, TIME_LIMIT, verdict_of
from drumbeat.launch.node.checks import CHECK_SECONDS, FILES_SECONDS, Finding, check_node
from drumbeat.launch.node.claims import RunFailedError, claim_attempt, claimed_attempt
from drumbeat.launch.node.handover import (
    AGAIN,
    cancel_next_job,
    ensure_next_job,
    exit_code,
    has_next_job,
    nodes_lost,
    previous_verdict,
    queue_after,
)
from drumbeat.launch.node.handshake import handshake
from drumbeat.launch.node.idle_gpus import GpuWatch
from drumbeat.launch.node.lost_nodes import remember_nodes, with_lost_nodes
from drumbeat.launch.node.members import WIDEN_SECONDS, Members, seen
from drumbeat.launch.node.states import SIGNALS, TRANSITIONS, Event, Outcome, State
from drumbeat.launch.node.time_limit import TimeLimit
from drumbeat.launch.node.torchrun import Agents, torchrun_order
from drumbeat.launch.slurm.grace import grace_warning
from drumbeat.launch.slurm.job import SlurmJob

POLL_SECONDS = 0.2
"""Seconds between two checks. A loop, because `Popen.poll` inside a signal handler sees nothing while `wait` runs."""
DOWN_TIMEOUT, STOP_TIMEOUT = FILES_SECONDS + CHECK_SECONDS + 30.0, 10.0
"""Seconds that the first node waits for the others to report: after a failure, as long as their checks may take; and
after a stop, when SLURM may soon kill the job."""
FIRST_NODE_TIMEOUT = 1800.0
"""Seconds that other nodes wait for the first, which may be saving. If it dies, srun --kill-on-bad-exit ends them."""
EXIT_TIMEOUT = 60.0
"""Seconds from the last checkpoint until all ranks must have exited."""

T = TypeVar("T")


@dataclass
class Launcher:
    """The launcher of one node of a job."""

    run: RunDir
    plan: JobPlan
    node: int = 0
    slurm_job: SlurmJob | None = None
    """The SLURM job of this process; None without SLURM."""
    received: Event | None = field(default=None, init=False)
    """The reason to stop, set by the signal handler; the main loop of the first node acts on it."""
    limit: TimeLimit = field(init=False, repr=False)
    """The time limit, in this attempt."""
    agents: Agents | None = field(default=None, init=False)
    """Runs torchrun; None until it is needed."""
    attempt: Attempt | None = field(default=None, init=False)
    """The last attempt that this launcher took part in."""
    code: int | None = field(default=None, init=False)
    """torchrun's exit code in this attempt, 1 if the nodes cannot connect; None if it was ended or not started."""
    failure: str = field(default="", init=False)
    """Why this node could not start the attempt."""
    finding: Finding | None = field(default=None, init=False)
    """What the checks of this node have found before the attempt."""
    members: Members = field(init=False)
    """The nodes that take part in the attempt."""
    has_next_job: bool = field(default=False, init=False)
    """Whether a job is queued that resumes the run if this one fails; or, in a container without SLURM's programs,
    whether the job's script can requeue this one."""

    def __post_init__(self) -> None:
        self.members = Members.of(self.plan, self.slurm_job)

    def run_attempts(self) -> Next:
        """Runs attempts until the first node's launcher decides to leave. Returns why."""
        for number in SIGNALS:
            signal.signal(number, self.on_signal)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # SLURM sends it before SIGTERM; submitit would log it
        become_subreaper()
        handlers = {State.JOIN: self.join, State.CLAIM: self.claim, State.CHECK: self.check,
                    State.HANDSHAKE: self.handshake, State.SUPERVISE: self.supervise, State.REPORT: self.report,
                    State.DECIDE: self.decide, State.WAIT: self.wait}
        state = State.JOIN
        while True:
            outcome = handlers[state]()
            state = TRANSITIONS[state, outcome]
            if state is State.LEAVE:
                return self.leave(outcome)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: only sets a flag. The first reason is kept."""
        self.received = self.received or SIGNALS[signal.Signals(number)]

    def join(self) -> Outcome:
        if self.slurm_job is None:
            return Outcome.NEW
        before = previous_verdict(self.run, self.plan, self.slurm_job, first=self.first)
        if before and before.next in ("leave", "give up"):
            return Outcome(before.next)
        if self.first:
            if warning := grace_warning(self.run, self.slurm_job.fields().get("Partition", "")):
                print(f"warning: {warning}", flush=True)
            self.has_next_job = ensure_next_job(self.run, self.plan, self.slurm_job)
        lost = self.slurm_job.lost_nodes(self.plan.topology.least_nodes)
        if lost and self.first:
            self.has_next_job, after = nodes_lost(self.run, self.plan, self.slurm_job, lost, self.has_next_job)
            return Outcome(after)
        return Outcome.REQUEUE if lost else Outcome.NEW

    def claim(self) -> Outcome:
        if self.first and self.node and self.slurm_job:  # the node that has decided before is left out
            self.has_next_job = has_next_job(self.run, self.plan, self.slurm_job)
        if self.first:
            self.attempt, asked_to_stop = claim_attempt(self.run, self.members, self.slurm_job)
            self.received = Event.STOP if asked_to_stop else self.received
        else:
            self.attempt = self.wait_for("the next attempt", self.claimed)
            self.members.join(self.attempt)
        if self.place < 0:
            return Outcome.LEFT_OUT
        self.code, self.failure, self.finding = None, "", None
        self.limit = TimeLimit(self.ask_end, self.run, self.plan.site.signal_seconds)
        with suppress(OSError):  # it imports torch meanwhile; the checks say what is missing
            self.agents = Agents.ready(self.agents, self.plan, self.current, self.place)
        return Outcome.CLAIMED

    def wait(self) -> Outcome:
        return Outcome(self.members.wait(self.run, self.current, self.node).next)

    def check(self) -> Outcome:
        self.finding = check_node(self.run, self.plan, self.current, self.place, self.is_stopped)
        if self.finding is None:
            return Outcome.ABORTED if self.is_stopped() else Outcome.CHECKED
        self.code, self.failure = 1, self.finding.message
        return Outcome.UNUSABLE

    def handshake(self) -> Outcome:
        if (nodes := self.members.topology.nodes) > 1 and not self.is_aborted():
            self.failure = handshake(self.current, self.place, nodes, self.is_aborted)
        if self.failure:
            self.code = 1
            return Outcome.UNREACHABLE
        return Outcome.ABORTED if self.is_aborted() else Outcome.CONNECTED

    def supervise(self) -> Outcome:
        attempt = self.current
        limit, gpus = self.limit, GpuWatch.of(self.plan, attempt, self.place)
        self.agents = agents = Agents.ready(self.agents, self.plan, attempt, self.place)
        agents.start(*torchrun_order(self.members.attempt_plan, attempt, self.place), attempt, self.place)
        leave_by, widen_at = float("inf"), time.monotonic() + WIDEN_SECONDS
        try:
            while (code := agents.poll()) is None:
                if self.first and (self.received or limit.must_stop()):
                    attempt.request_stop((self.received or Event.TIME_LIMIT).value)
                if self.first and time.monotonic() > widen_at and os.path.exists(attempt.more_nodes):  # noqa: PTH110
                    attempt.request_stop(MORE_NODES)
                if os.path.exists(attempt.saved):  # noqa: PTH110  (False too if the disk does not answer)
                    leave_by = min(leave_by, time.monotonic() + EXIT_TIMEOUT)
                if limit.is_over() or time.monotonic() > leave_by or agents.hang() or self.is_over(attempt):
                    return Outcome.ENDED
                gpus.check()
                limit.sleep(POLL_SECONDS)
            self.code = code
            return Outcome.EXITED
        finally:
            if alive := agents.end():
                print(f"processes {alive} cannot be killed: they are waiting for a disk or a driver", flush=True)

    def report(self) -> Outcome:
        self.current.report(self.place, NodeDown(exit_code=self.code, host=node_name(), message=self.failure,
                                                check=self.finding.kind if self.finding else ""))
        return Outcome.REPORTED

    def decide(self) -> Outcome:
        attempt = self.current
        verdict = self.conclude(attempt) if self.first else (
            self.wait_for("the verdict", partial(Verdict.read, attempt.verdict)))
        if verdict is None:
            return Outcome.ABANDONED
        self.members.follow(verdict)
        return Outcome(verdict.next)

    def leave(self, outcome: Outcome) -> Next:
        """Ends this launcher; with `os._exit` if SLURM waits for it, or the run continues: submitit would end that."""
        if outcome is Outcome.ABANDONED:
            os._exit(AGAIN)
        if outcome is Outcome.REQUEUE:
            os._exit(exit_code(self.run, has_next_job=self.has_next_job))
        if self.first and self.slurm_job:
            cancel_next_job(self.run, self.slurm_job)
        if self.agents:
            self.agents.close()
        return "give up" if outcome is Outcome.GIVE_UP else "leave"

    @property
    def first(self) -> bool:
        """Whether this is the first node that takes part, which decides for all nodes."""
        return self.place == 0

    @property
    def place(self) -> int:
        """The number of this node in the attempt; -1 if it does not take part."""
        return self.members.place(self.node)

    @property
    def current(self) -> Attempt:
        """The current attempt."""
        assert self.attempt
        return self.attempt

    def claimed(self) -> Attempt | None:
        """Other nodes: the next attempt; None if the first node has not claimed it yet. Raises `RunFailedError` if
        SLURM terminates this process meanwhile, because the first node's launcher has left."""
        if self.received is Event.TERMINATED:
            raise RunFailedError(f"node {self.node}: terminated while waiting for the first node's launcher")
        return claimed_attempt(self.run, after=self.attempt.number if self.attempt else -1)

    def ask_end(self, known: float) -> float:
        """The end of the job's time limit; only the first node asks for it. See `TimeLimit.ask`."""
        return self.slurm_job.end_time(known) if self.first and self.slurm_job else known

    def is_stopped(self) -> bool:
        """Whether the run must stop. A failure of another node is no stop, so that all nodes finish their checks."""
        if self.first and self.received:
            self.current.request_stop(self.received.value)
        return os.path.exists(self.current.stop)  # noqa: PTH110  (as above)

    def is_aborted(self) -> bool:
        """Whether the attempt must end before its ranks start."""
        return self.is_stopped() or self.is_over(self.current)

    def is_over(self, attempt: Attempt) -> bool:
        """Whether another node's torchrun has failed or was ended, or another job has taken over the run."""
        try:
            os.close(os.open(attempt.path, os.O_RDONLY))  # over NFS, this asks the server whether it has changed
            return self.run.is_superseded(attempt.number) or os.path.exists(attempt.node_failed)  # noqa: PTH110
        except OSError:  # the disk does not answer, which says nothing about the run
            return False

    def conclude(self, attempt: Attempt) -> Verdict | None:
        """First node: determines the verdict and records it for the other nodes and for `status`. Returns None if the
        launchers that are started next must do it."""
        request = StopRequest.read(attempt.stop)
        nodes = range(self.members.topology.nodes)
        all_down = wait_until(lambda: all(attempt.node_down(node).exists() for node in nodes),
                              STOP_TIMEOUT if request else min(DOWN_TIMEOUT, max(STOP_TIMEOUT, self.limit.left())))
        reason = self.slurm_job.why_terminated() if self.slurm_job and request else ""
        if reason == "terminated" and request and request.reason != TIME_LIMIT and not (
                all_down and (self.members.are_all or request.reason != TERMINATED)):
            return None
        verdict = verdict_of(self.run, attempt, restarts=self.plan.restarts, slurm=reason,
                             suspended=self.limit.suspended, spare=self.members.spare,
                             queue=self.slurm_job is not None and not self.slurm_job.is_allocation)
        verdict = replace(verdict, left_out=self.members.left_out(attempt, verdict.left_out))
        if self.slurm_job:
            verdict = with_lost_nodes(verdict, attempt)
            remember_nodes(self.run, verdict)
        if verdict.next == "requeue" and self.slurm_job:
            verdict, self.has_next_job = queue_after(verdict, self.run, self.plan, self.slurm_job, self.has_next_job)
        if verdict.outcome != "superseded":
            self.run.write_status(verdict.state, attempt=attempt.number, verdict=verdict.message)
        verdict.write(attempt.verdict)
        return verdict

    def wait_for(self, what: str, check: Callable[[], T | None]) -> T:
        """Other nodes: waits for something that the first node writes. Raises `RunFailedError` after a timeout."""
        if (found := wait_until(partial(seen, check), FIRST_NODE_TIMEOUT)) is not None:
            return found
        raise RunFailedError(f"node {self.node}: the first node's launcher is gone; timed out waiting for {what}")


def wait_until(check: Callable[[], T | None], seconds: float) -> T | None:
    """Calls `check` until it returns something true or the time is over; its last result."""
    until = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found
