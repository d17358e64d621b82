"""The node launcher: once on each node, for a run on this machine as for one on a cluster (`node/node.py` starts it).

It is the only process that reacts to signals, and the first node's alone acts on them. It owns torchrun: starts it,
asks the ranks to stop by a marker in the run folder, waits for their save, ends what is left, and then goes on as the
first node's launcher decides: leave, start the next attempt in place, or queue the job again. The launchers of a job
speak to each other through the attempt's folder only. No torch here.

It is a state machine: `node/states.py` has its states, what each may come to, and the table of what follows.

Where a launcher itself is killed, the job's script starts those of all nodes again (`launch/backends`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import TypeVar

from drumbeat.configs.run.disk import persist
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import AttemptStart, Next, NodeDown, StopRequest, Verdict
from drumbeat.launch.attempts.hang import FLIGHT_RECORDER
from drumbeat.launch.attempts.processes import become_subreaper
from drumbeat.launch.attempts.verdict import judge
from drumbeat.launch.node.handover import AGAIN, CONTINUE, drop_successor, look_back, queue_successor
from drumbeat.launch.node.handshake import meet
from drumbeat.launch.node.rendezvous import LOOPBACK, free_port, network_variables, own_address
from drumbeat.launch.node.states import SIGNALS, TRANSITIONS, Event, Outcome, State
from drumbeat.launch.node.torchrun import Agents
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

T = TypeVar("T")


class RunFailedError(Exception):
    """The run was given up. Raised so that SLURM, too, calls the job failed."""


@dataclass
class Launcher:
    """One node's part of a job."""

    run: RunDir
    plan: JobPlan
    node: int = 0
    slurm_job: SlurmJob | None = None
    """Where SLURM runs us."""
    received: Event | None = field(default=None, init=False)
    """Why to stop: set by a signal handler, acted upon by the main loop of the first node."""
    end: float = field(default=float("inf"), init=False)
    """When the job's time is up, as far as the first node has to know."""
    agents: Agents | None = field(default=None, init=False)
    """What runs torchrun, once it was needed."""
    attempt: Attempt | None = field(default=None, init=False)
    """The last one that this launcher took part in."""
    code: int | None = field(default=None, init=False)
    """Of the attempt: torchrun's exit code, 1 where the nodes do not meet; None where it was ended, or not begun,
    because of another node or a stop."""
    trouble: str = field(default="", init=False)
    """Why this node could not even begin the attempt."""
    successor: bool = field(default=False, init=False)
    """Whether a job is queued that goes on with the run if this one ends without success; or, where we are in a
    container without SLURM's programs, whether the job's script can have this one queued again."""

    def run_attempts(self) -> Next:
        """Attempt after attempt, until the first node's launcher says to leave, or where it has ended already."""
        for number in SIGNALS:
            signal.signal(number, self.on_signal)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # SLURM sends it ahead of SIGTERM; submitit would log it
        become_subreaper()
        steps = {State.JOIN: self.join, State.CLAIM: self.claim, State.MEET: self.meet, State.SUPERVISE: self.supervise,
                 State.DOWN: self.report_down, State.DECIDE: self.decide}
        state = State.JOIN
        while True:
            outcome = steps[state]()
            state = TRANSITIONS[state, outcome]
            if state is State.LEAVE:
                return self.leave(outcome)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: sets a flag and nothing else. The first reason stands."""
        self.received = self.received or SIGNALS[signal.Signals(number)]

    def join(self) -> Outcome:
        if self.slurm_job is None:
            return Outcome.NEW
        before = look_back(self.run, self.plan, self.slurm_job, first=self.first)
        if before and before.next in ("leave", "give up"):
            return Outcome(before.next)
        if self.first:
            self.end = self.slurm_job.end_time()
            if warning := grace_warning(self.run, self.slurm_job.look().get("Partition", "")):
                print(f"warning: {warning}", flush=True)
            if self.slurm_job.needs_successor():
                refusal = queue_successor(self.run, self.plan, self.slurm_job)
                self.successor = not refusal or bool(self.plan.site.prefix)
                if not self.successor:
                    print(f"warning: SLURM would not queue this job again, nor take another for it: {refusal}",
                          flush=True)
        return Outcome.NEW

    def claim(self) -> Outcome:
        self.attempt = self.next_attempt() if self.first else self.wait_for("the next attempt", self.claimed)
        self.code, self.trouble = None, ""
        return Outcome.CLAIMED

    def meet(self) -> Outcome:
        nodes = self.plan.topology.nodes
        if nodes > 1 and not self.called_off():
            self.trouble = meet(self.current, self.node, nodes, self.called_off)
        if self.trouble:
            self.code = 1
            return Outcome.APART
        return Outcome.CALLED_OFF if self.called_off() else Outcome.MET

    def supervise(self) -> Outcome:
        attempt = self.current
        lead = lead_seconds(self.run, self.plan.site.signal_seconds, self.plan.site.time_minutes)
        agents = self.start(attempt)
        saved_at = float("inf")
        try:
            while (code := agents.poll()) is None:
                now = time.time()
                if self.first and (self.received or now > self.end - lead):
                    attempt.request_stop((self.received or Event.TIME_LIMIT).value)
                if attempt.saved.exists():
                    saved_at = min(saved_at, now)
                if now > min(self.end, saved_at + LEAVE_PATIENCE) or self.is_over(attempt):
                    return Outcome.ENDED
                time.sleep(POLL)
            self.code = code
            return Outcome.EXITED
        finally:
            if left := agents.end():
                print(f"processes {left} do not end: they wait for a disk or a driver", flush=True)

    def report_down(self) -> Outcome:
        NodeDown(exit_code=self.code, host=own_address(), message=self.trouble).write(self.current.node_down(self.node))
        return Outcome.REPORTED

    def decide(self) -> Outcome:
        attempt = self.current
        verdict = self.judge(attempt) if self.first else (
            self.wait_for("the verdict", partial(Verdict.read, attempt.verdict)))
        return Outcome(verdict.next) if verdict else Outcome.ABANDONED

    def leave(self, outcome: Outcome) -> Next:
        """All ways out. Past submitit, which would call the job done, where it is not; and at once where SLURM waits
        for us."""
        if outcome is Outcome.ABANDONED:
            os._exit(AGAIN)
        if outcome is Outcome.REQUEUE:
            os._exit(CONTINUE if self.successor else 0)
        if self.first:
            drop_successor(self.run)
        if self.agents:
            self.agents.close()
        return "give up" if outcome is Outcome.GIVE_UP else "leave"

    @property
    def first(self) -> bool:
        """Whether this is the first node, which decides for all."""
        return self.node == 0

    @property
    def current(self) -> Attempt:
        """The attempt that is claimed."""
        assert self.attempt
        return self.attempt

    def next_attempt(self) -> Attempt:
        """The first node: takes the next attempt, and tells the others where its ranks will meet."""
        before = self.run.newest_attempt()
        attempt = persist(self.run.claim_attempt)
        jobs = {job_name(), self.slurm_job.after if self.slurm_job else ""} - {""}
        asked = StopRequest.read(before.stop) if before and any(ours(before, job) for job in jobs) else None
        if asked and asked.reason == "stopped":
            self.received = Event.STOP  # asked for when that attempt was already over
        address = own_address() if self.plan.topology.nodes > 1 else LOOPBACK
        AttemptStart(job=job_identity(), address=address, port=free_port()).write(attempt.launch)
        last = Verdict.read(before.verdict) if before else None  # which may be why there is another attempt
        self.run.write_status("running", attempt=attempt.number,
                              verdict=last.message if last and last.next in ("restart", "requeue") else "")
        return attempt

    def claimed(self) -> Attempt | None:
        """The other nodes: the attempt that the first one claimed for this start of this job, after our last one.
        Raises `RunFailedError` where SLURM ends us meanwhile, because the first one has left."""
        if self.received is Event.TERMINATED:
            raise RunFailedError(f"node {self.node}: ended while it waited for the first node's launcher")
        newest = self.run.newest_attempt()
        last = newest.number if newest else -1
        joined = self.attempt.number if self.attempt else -1
        for number in range(last, max(joined, last - 10), -1):
            attempt = self.run.attempt(number)
            if ours(attempt, job_identity()):
                return attempt
        return None

    def called_off(self) -> bool:
        """Whether the attempt is to end before its ranks begin."""
        attempt = self.current
        if self.first and self.received:
            attempt.request_stop(self.received.value)
        return attempt.stop.exists() or self.is_over(attempt)

    def is_over(self, attempt: Attempt) -> bool:
        """Whether another node's torchrun has failed, or another job has taken over the run."""
        try:
            nodes = map(NodeDown.read, attempt.path.glob("node*.down.json"))
            return self.run.is_superseded(attempt.number) or any(down and down.exit_code for down in nodes)
        except OSError:  # the disk does not answer, which says nothing about the run
            return False

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

    def judge(self, attempt: Attempt) -> Verdict | None:
        """The first node: what the attempt came to and what is next, written down for the others and for `status`. None
        where that is for the launchers to say that are started next."""
        until = min(self.end, time.time() + (STOP_PATIENCE if attempt.stop.exists() else DOWN_PATIENCE))
        nodes = range(self.plan.topology.nodes)
        while not (all_down := all(attempt.node_down(node).exists() for node in nodes)) and time.time() < until:
            time.sleep(POLL)
        fate = self.slurm_job.fate() if self.slurm_job and attempt.stop.exists() else ""
        if fate == "terminated" and not all_down:
            return None
        verdict = judge(self.run, attempt, restarts=self.plan.restarts, slurm=fate,
                        queue=not (self.slurm_job and self.slurm_job.users_own))
        if verdict.next == "requeue" and (refusal := self.queue_again()):
            verdict = replace(verdict, next="leave",
                              message=f"{verdict.message}; SLURM does not queue it again: {refusal}")
        if verdict.outcome != "superseded":
            self.run.write_status(verdict.state, attempt=attempt.number, verdict=verdict.message)
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
