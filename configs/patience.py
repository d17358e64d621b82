"""How long a rank may be silent, and the order in which the clocks of a hang run out.

Several libraries watch a rank that waits for the others, each by its own clock. A hang explains itself if they run out
in this order, which is why all of them are set here, in seconds:

1. `nccl_seconds`: NCCL's collectives time out, and torch's flight recorder writes, on every rank, which ones it joined.
2. `patience`: the watchdog of each rank (`drumbeat.trainers.watchdog`) writes down the stacks of all threads.
3. `GRACE` later, the kernel ends the rank.
4. Later still NCCL would end a rank that waits, gloo would raise an error, and NCCL's heartbeat monitor would end a
   rank whose CUDA calls block, in a long compilation or the capture of a graph. They matter before the first step only.

Read in ProcessGroupNCCL.hpp and FlightRecorder.hpp of torch 2.9.0 and 2.14.1, and in ProcessGroupNCCL.cpp of the years
between. Not tested on a GPU.
"""

from __future__ import annotations

from drumbeat.configs.schema import Config

SHORTEST = 1800.0
"""Patience unless the config says otherwise; a step that takes longer makes it grow."""
GRACE = 5.0
"""From the stacks to the end of a rank, so that no rank is ended before the last has written."""
MARGIN = 60.0
"""From the flight recorder to the stacks, for a collective that begins as much later than its step."""
DUMP = 20.0
"""TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC: NCCL ends a rank four times as long after a time-out, which is past `GRACE`."""


def patience(config: Config) -> float:
    """How long a rank may give no sign of life: longer than a run pauses for its disk."""
    if config.watchdog.timeout_minutes is not None:
        return 60 * config.watchdog.timeout_minutes
    return max(SHORTEST, 1.5 * 60 * config.checkpoints.disk_wait_minutes)


def nccl_seconds(patience: float) -> float:
    """When a collective of NCCL's times out: before the watchdog loses patience."""
    return patience - min(MARGIN, patience / 4)


def gloo_seconds(patience: float) -> float:
    """When a collective of gloo's raises an error: after the watchdog has lost patience, because the error would end a
    rank that only waits, and with it the one that hangs, before that one's stacks are written."""
    return max(SHORTEST, 2 * patience)


def nccl_environment(patience: float) -> dict[str, str]:
    """What torch's NCCL backend is told by variables. The names of the flight recorder's buffer are those of torch 2.9
    and of later ones; torch 2.9 needs both."""
    return {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": str(int(1000 * DUMP)),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",  # torch's default; torchrun's aborts communicators, which may hang
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": str(int(max(SHORTEST, patience))),
    }
