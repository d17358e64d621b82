"""What a failed attempt leaves in its folder."""

from __future__ import annotations

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.records import RankError

REPORT = """\
drumbeat.trainers.worker FAILED
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 10221)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-22_02:10:44
  host      : localhost
  rank      : {rank} (local_rank: 1)
  exitcode  : {code} (pid: 10222)  (SIGKILL)
  error_file: <N/A>
"""
"""As torchrun 2.14 writes it."""


def error(attempt: Attempt, rank: int = 1, message: str = "boom", step: int = 7, kind: str = "ValueError") -> None:
    RankError(rank=rank, node="n2", type=kind, message=message, step=step).write(attempt.error(rank))


ABORTED = """\
[rank1]:[E830 17:28:57.137971692 ProcessGroupNCCL.cpp:2068] [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group \
watchdog thread terminated with exception: {why}
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
Exception raised from c10_cuda_check_implementation at /pytorch/c10/cuda/CUDAException.cpp:43 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f378b96c446 in libc10.so)

terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group watchdog thread terminated with exception: {why}
Fatal Python error: Aborted
"""
"""The end of the log of a rank that torch's watchdog for NCCL has ended, as users report it."""
