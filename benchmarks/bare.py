"""The peer: a minimal hand-written DistributedDataParallel loop, started by torchrun.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.bare WORK tuned|naive [FILE]

tuned: the same computation as ours (bf16 autocast if the CPU supports it, channels_last, frozen blocks in eval mode,
       fused Adam).
naive: fp32, default memory format, DistributedDataParallel's defaults, all modules in train mode.
Rank 0 prints the seconds per step: the median over intervals without the first. With FILE it trains without end, and
after the first step the last rank appends the time and its process id to it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from benchmarks.work import WORKS, images
from drumbeat.data.images import Normalize
from drumbeat.trainers.build import computes_bf16
from drumbeat.trainers.target import instantiate


def main(name: str, *, tuned: bool, marks: str = "") -> None:
    work = WORKS[name]
    dist.init_process_group("gloo")
    size = dist.get_world_size()
    arrays = images(pixels=work.pixels, channels=work.channels, samples=work.samples)
    data = TensorDataset(arrays.inputs, arrays.targets)
    loader = DataLoader(data, batch_size=work.batch // size, sampler=DistributedSampler(data), drop_last=True)
    torch.manual_seed(0)
    model: nn.Module = instantiate(work.model, "model")
    normalize = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    if tuned:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for frozen in work.freeze:
        model.get_submodule(frozen).requires_grad_(False)
    replica = DistributedDataParallel(model, broadcast_buffers=not tuned, gradient_as_bucket_view=tuned)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3,
                                 fused=tuned or None)
    loss_function = nn.CrossEntropyLoss()
    bf16 = tuned and computes_bf16("auto", torch.device("cpu"))
    model.train()
    if tuned:
        for frozen in work.freeze:
            model.get_submodule(frozen).eval()
    seconds = []
    step, since = 0, time.perf_counter()
    while step < work.steps or marks:
        for batch, labels in loader:
            inputs = normalize(batch)
            if tuned:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
                loss = loss_function(replica(inputs).float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if marks and step == 1 and dist.get_rank() == size - 1:
                with open(marks, "a") as file:
                    print(json.dumps({"time": time.time(), "pid": os.getpid()}), file=file)
            if step % work.every == 0:
                seconds.append((time.perf_counter() - since) / work.every)
                since = time.perf_counter()
            if step == work.steps:
                break
    if dist.get_rank() == 0:
        print(f"seconds {statistics.median(seconds[1:] or seconds)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], tuned=sys.argv[2] == "tuned", marks=(sys.argv[3:] or [""])[0])
