"""The timeouts for a hanging rank, in seconds, and their order.

Several libraries have a timeout for a rank that waits for the others. All of them are set here, so that they expire in
the order that explains a hang best:

1. `nccl_seconds`: NCCL's collectives time out, and torch's flight recorder writes the collectives of every rank.
2. `patience`: the watchdog of each rank (`drumbeat.trainers.watchdog`) writes the stacks of all threads.
3. `GRACE` later, the launcher of its node ends the attempt (`drumbeat.launch.node.hanging`).
4. Later still, NCCL would end a waiting rank, gloo would raise an error, and NCCL's heartbeat monitor would end a rank
   whose CUDA calls block, in a long compilation or graph capture. These matter only before the first step.

Source: ProcessGroupNCCL.hpp and FlightRecorder.hpp of torch 2.9.0 and 2.14.1, and ProcessGroupNCCL.cpp of the versions
between. Not tested on a GPU.
"""

from __future__ import annotations

from drumbeat.configs.schema import Config

SHORTEST = 1800.0
"""The default of `patience`; the watchdog waits longer if steps take longer."""
GRACE = 5.0
"""The time between writing the stacks and ending the ranks, so that all of them can write theirs."""
PROGRESS = b"step %12d\ntimeout %9.1f s, call %12d\n"
"""What each rank writes in front of its stacks: its step, its timeout, infinite when the watchdog is off, and how often
it has called the watchdog."""
MARGIN = 60.0
"""The time between the flight recorder and the stacks, for a collective that starts late in its step."""
DUMP = 20.0
"""TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC: NCCL ends a rank four times as long after a timeout, which is after `GRACE`."""


def patience(config: Config) -> float:
    """How long a rank may make no progress before it counts as hanging: longer than a run waits for its disk."""
    if config.watchdog.timeout_minutes is not None:
        return 60 * config.watchdog.timeout_minutes
    return max(SHORTEST, 1.5 * 60 * config.checkpoints.disk_wait_minutes)


def nccl_seconds(patience: float) -> float:
    """The timeout of NCCL's collectives: shorter than the watchdog's."""
    return patience - min(MARGIN, patience / 4)


def gloo_seconds(patience: float) -> float:
    """The timeout of gloo's collectives: longer than the watchdog's. Otherwise gloo's error would end the waiting
    ranks, and so the hanging one before its stacks are written."""
    return max(SHORTEST, 2 * patience)


def nccl_environment(patience: float) -> dict[str, str]:
    """Environment variables for torch's NCCL backend. The flight recorder's buffer has one name in torch 2.9 and
    another in later versions; torch 2.9 needs both."""
    return {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": str(int(1000 * DUMP)),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",  # torch's default; torchrun's aborts communicators, which may hang
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": str(int(max(SHORTEST, patience))),
    }
