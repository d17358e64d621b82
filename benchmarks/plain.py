"""The peer of a start: a script as torch's tutorials have it, which takes one step and prints when.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.plain
"""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
import torchvision  # noqa: F401  (as a script for images imports it)
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo")
    model = DistributedDataParallel(nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(3, 4)).sum().backward()
    optimizer.step()
    if dist.get_rank() == 0:
        print(f"first step {time.time()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
