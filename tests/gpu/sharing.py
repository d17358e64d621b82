"""One of several ranks that share the first GPU, joined by gloo: NCCL refuses two ranks on one GPU by default.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python -m tests.gpu.sharing RUN ATTEMPT

A rank as `worker.py` runs it, on the tensors' real device; only the process group differs from the real one.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch.distributed as dist

from drumbeat.trainers import worker

if __name__ == "__main__":
    os.environ["LOCAL_RANK"] = "0"
    join = dist.init_process_group

    def join_by_gloo(*args: Any, **options: Any) -> None:
        join("gloo")

    dist.init_process_group = join_by_gloo
    worker.main(sys.argv[1], int(sys.argv[2]))
