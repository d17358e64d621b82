"""The node launcher as a state machine: its states, what each may come to, and which state follows."""

from __future__ import annotations

import signal
from enum import Enum, auto

from drumbeat.launch.attempts.verdict import TERMINATED, TIME_LIMIT


class State(Enum):
    """What a launcher is doing. All nodes' launchers go through the same states; the first node's decides."""

    JOIN = auto()
    """Reads what earlier launchers of this job left behind, and sees to it that the run can go on after the job."""
    CLAIM = auto()
    """The first node claims the next attempt, and the others wait for it."""
    MEET = auto()
    """The nodes see that they reach each other."""
    SUPERVISE = auto()
    """torchrun runs: until it ends, or is ended because of a stop, another node or another job."""
    DOWN = auto()
    """Nothing of the attempt runs on this node any more, and the others are told."""
    DECIDE = auto()
    """The first node waits until all nodes are down and judges the attempt, and the others wait for its verdict."""
    LEAVE = auto()
    """The launcher ends. There is no way out of this state."""


class Outcome(Enum):
    """What a state came to."""

    NEW = auto()
    """Earlier launchers left nothing that ends the run."""
    CLAIMED = auto()
    """There is an attempt."""
    MET = auto()
    """All nodes reach the first."""
    APART = auto()
    """The nodes do not reach each other: this node has failed."""
    CALLED_OFF = auto()
    """The attempt is to end before its ranks begin: a stop, another node or another job."""
    EXITED = auto()
    """torchrun has ended by itself, well or not."""
    ENDED = auto()
    """torchrun was ended, because of a stop, another node or another job."""
    REPORTED = auto()
    """The others know that this node is down."""
    ABANDONED = auto()
    """Another node's launcher has died, so SLURM ends this step: the launchers that are started next judge."""
    RESTART = "restart"
    """The verdict: the next attempt, in place."""
    REQUEUE = "requeue"
    """The verdict: the run goes on in a job that SLURM has queued."""
    FINISH = "leave"
    """The verdict: the run has ended, was stopped, or belongs to another job."""
    GIVE_UP = "give up"
    """The verdict: the run has failed for good."""


TRANSITIONS: dict[tuple[State, Outcome], State] = {
    (State.JOIN, Outcome.NEW): State.CLAIM,
    (State.JOIN, Outcome.FINISH): State.LEAVE,
    (State.JOIN, Outcome.GIVE_UP): State.LEAVE,
    (State.CLAIM, Outcome.CLAIMED): State.MEET,
    (State.MEET, Outcome.MET): State.SUPERVISE,
    (State.MEET, Outcome.APART): State.DOWN,
    (State.MEET, Outcome.CALLED_OFF): State.DOWN,
    (State.SUPERVISE, Outcome.EXITED): State.DOWN,
    (State.SUPERVISE, Outcome.ENDED): State.DOWN,
    (State.DOWN, Outcome.REPORTED): State.DECIDE,
    (State.DECIDE, Outcome.RESTART): State.CLAIM,
    (State.DECIDE, Outcome.REQUEUE): State.LEAVE,
    (State.DECIDE, Outcome.FINISH): State.LEAVE,
    (State.DECIDE, Outcome.GIVE_UP): State.LEAVE,
    (State.DECIDE, Outcome.ABANDONED): State.LEAVE,
}
"""Which state follows when a state has come to this. The launcher's loop does nothing else than look here; a pair that
is not here is a fault of ours."""


class Event(Enum):
    """Why to stop, as stop.json has it. The first one that is received stands."""

    STOP = "stopped"
    """A person has asked for it."""
    TIME_LIMIT = TIME_LIMIT
    """The job's time is nearly up: SLURM has sent the signal that the job's script asks for, or the clock says so."""
    TERMINATED = TERMINATED
    """SIGTERM: SLURM ends the job or this step, for whatever reason."""


SIGNALS = {signal.SIGUSR1: Event.TIME_LIMIT, signal.SIGUSR2: Event.TIME_LIMIT, signal.SIGTERM: Event.TERMINATED}
"""What the signals mean that a launcher reacts to. Both of SIGUSR, because a site may have its own idea of --signal."""
