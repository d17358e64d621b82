"""The node launcher as a state machine: its states, their outcomes, and the transitions."""

from __future__ import annotations

import signal
from enum import Enum, auto

from drumbeat.launch.attempts.verdict import TERMINATED, TIME_LIMIT


class State(Enum):
    """The state of a launcher. The launchers of all nodes go through the same states; the first node's decides."""

    JOIN = auto()
    """Reads the verdict of earlier launchers of this job, and ensures that the run can continue after the job."""
    CLAIM = auto()
    """The first node claims the next attempt; the others wait for it."""
    WAIT = auto()
    """This node does not take part in the attempt, in which the others can do without it. Its launcher waits for the
    verdict, and says if the node can take part again."""
    CHECK = auto()
    """Each node checks that it has what its ranks need, and runs the site's check."""
    HANDSHAKE = auto()
    """The nodes check that they can connect."""
    SUPERVISE = auto()
    """torchrun runs until it exits, or is ended because of a stop, another node or another job."""
    REPORT = auto()
    """All processes of the attempt on this node have ended, and the node reports that."""
    DECIDE = auto()
    """The first node waits for all reports and determines the verdict; the others wait for it."""
    LEAVE = auto()
    """The launcher ends. A final state."""


class Outcome(Enum):
    """The outcome of a state."""

    NEW = auto()
    """No earlier verdict ends the run."""
    CLAIMED = auto()
    """An attempt is claimed."""
    LEFT_OUT = auto()
    """An attempt is claimed, without this node."""
    CHECKED = auto()
    """The checks have found nothing."""
    UNUSABLE = auto()
    """The checks have found something: this node has failed."""
    CONNECTED = auto()
    """All nodes are connected to the first."""
    UNREACHABLE = auto()
    """The nodes cannot connect: this node has failed."""
    ABORTED = auto()
    """The attempt must end before its ranks start, because of a stop, another node or another job."""
    EXITED = auto()
    """torchrun has exited, with any exit code."""
    ENDED = auto()
    """torchrun was ended, because of a stop, another node or another job."""
    REPORTED = auto()
    """This node has reported."""
    ABANDONED = auto()
    """Another node's launcher has died, so SLURM ends this step: the next launchers determine the verdict."""
    RESTART = "restart"
    """The verdict: start the next attempt in place."""
    REQUEUE = "requeue"
    """The verdict: the run continues in a queued job."""
    FINISH = "leave"
    """The verdict: the run has ended, was stopped, or belongs to another job."""
    GIVE_UP = "give up"
    """The verdict: the run has failed for good."""


TRANSITIONS: dict[tuple[State, Outcome], State] = {
    (State.JOIN, Outcome.NEW): State.CLAIM,
    (State.JOIN, Outcome.FINISH): State.LEAVE,
    (State.JOIN, Outcome.GIVE_UP): State.LEAVE,
    (State.JOIN, Outcome.REQUEUE): State.LEAVE,
    (State.CLAIM, Outcome.CLAIMED): State.CHECK,
    (State.CLAIM, Outcome.LEFT_OUT): State.WAIT,
    (State.WAIT, Outcome.RESTART): State.CLAIM,
    (State.WAIT, Outcome.REQUEUE): State.LEAVE,
    (State.WAIT, Outcome.FINISH): State.LEAVE,
    (State.WAIT, Outcome.GIVE_UP): State.LEAVE,
    (State.CHECK, Outcome.CHECKED): State.HANDSHAKE,
    (State.CHECK, Outcome.UNUSABLE): State.REPORT,
    (State.CHECK, Outcome.ABORTED): State.REPORT,
    (State.HANDSHAKE, Outcome.CONNECTED): State.SUPERVISE,
    (State.HANDSHAKE, Outcome.UNREACHABLE): State.REPORT,
    (State.HANDSHAKE, Outcome.ABORTED): State.REPORT,
    (State.SUPERVISE, Outcome.EXITED): State.REPORT,
    (State.SUPERVISE, Outcome.ENDED): State.REPORT,
    (State.REPORT, Outcome.REPORTED): State.DECIDE,
    (State.DECIDE, Outcome.RESTART): State.CLAIM,
    (State.DECIDE, Outcome.REQUEUE): State.LEAVE,
    (State.DECIDE, Outcome.FINISH): State.LEAVE,
    (State.DECIDE, Outcome.GIVE_UP): State.LEAVE,
    (State.DECIDE, Outcome.ABANDONED): State.LEAVE,
}
"""The state that follows a state and its outcome. The launcher's loop only looks up this table; a missing pair is a
bug."""


class Event(Enum):
    """The reason to stop, as in stop.json. The first one is kept."""

    STOP = "stopped"
    """A user requested it."""
    TIME_LIMIT = TIME_LIMIT
    """The time limit is near: SLURM has sent the signal that the job's script requests, or the clock says so."""
    TERMINATED = TERMINATED
    """SIGTERM: SLURM ends the job or this step, for any reason."""


SIGNALS = {signal.SIGUSR1: Event.TIME_LIMIT, signal.SIGUSR2: Event.TIME_LIMIT, signal.SIGTERM: Event.TERMINATED}
"""The meaning of the signals that a launcher handles. Both SIGUSR, because a site may set --signal itself."""
