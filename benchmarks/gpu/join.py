"""How long ranks take to join: with NCCL on each GPU, with NCCL on one GPU if it allows two ranks, and with gloo.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=P python -m benchmarks.gpu.join BACKEND cuda:0|cpu    one rank
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.scale import Scale

PATIENCE = 25.0
"""Seconds for the ranks of one case on a GPU, imports included."""


def figures(scale: Scale) -> Iterator[Figure]:
    """Each case: seconds from the moment that all ranks are connected until the first sum over them is known."""
    if not scale.on_gpu:
        cases = [("gloo", ["cpu", "cpu"])]
    else:
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        cases = [("nccl", gpus), ("nccl", ["cuda:0"] * 2), ("gloo", ["cuda:0"] * 2)]
    for backend, devices in cases:
        name = f"{len(devices)} rank{'s' * (len(devices) > 1)} on {', '.join(sorted(set(devices)))} join by {backend}"
        seconds, error = ranks(backend, devices, PATIENCE * scale.patience)
        yield Figure(part="join", name=name, unit="s", ours=seconds, error=error)


def ranks(backend: str, devices: Sequence[str], patience: float) -> tuple[float | None, str]:
    """Seconds that rank 0 has measured, or why the ranks did not join."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NCCL_DEBUG": "WARN",
                                "WORLD_SIZE": str(len(devices)), "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    started = [subprocess.Popen([sys.executable, "-m", "benchmarks.gpu.join", backend, device], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=environment | {"RANK": str(rank)}) for rank, device in enumerate(devices)]
    until = time.monotonic() + patience
    for rank in started:
        try:
            rank.wait(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
    printed = [rank.communicate()[0] for rank in started]
    found = re.search(r"joined in ([\d.]+)", printed[0])
    if found and all(rank.returncode == 0 for rank in started):
        return float(found[1]), ""
    lines = [line for text in printed for line in text.strip().splitlines()]
    reason = next((line for line in lines if "NCCL WARN" in line), lines[-1] if lines else "no output")
    return None, f"the ranks did not join within {patience:.0f} s, or failed: {reason}"


def main(backend: str, name: str) -> None:
    """One rank. Sums a tensor, broadcasts one in channels_last order, and takes a step of DistributedDataParallel."""
    device = torch.device(name)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.synchronize()  # creates the context, whose time is not measured
    store = dist.TCPStore(  # type: ignore[attr-defined]  # returns when all ranks are connected
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, rank == 0)
    began = time.perf_counter()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size,
                            device_id=device if backend == "nccl" else None)
    ones = torch.ones(3, device=device)
    dist.all_reduce(ones)
    assert ones.tolist() == [size] * 3
    seconds = time.perf_counter() - began
    dist.broadcast(torch.ones(8, 3, 3, 3, device=device).to(memory_format=torch.channels_last), src=0)
    replica = DistributedDataParallel(nn.Linear(99, 9).to(device), gradient_as_bucket_view=True,
                                      device_ids=[device] if device.type == "cuda" else None)
    replica(torch.ones(4, 99, device=device)).sum().backward()
    dist.barrier()
    dist.destroy_process_group()
    if rank > 0:
        store.set(f"rank {rank} has left", "")
    elif others := [f"rank {other} has left" for other in range(1, size)]:
        store.wait(others)  # rank 0 serves the store, without which leaving the group is an error
    print(f"joined in {seconds:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
