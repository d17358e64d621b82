"""The peers of `benchmarks.tiny_steps`, and the work that all contestants share: a small network on samples in memory.

    MARKS=FILE python -m benchmarks.tiny_peers PEER [--workers N] [--hidden N ...]

PEER is a function of this module. The network counts its forward passes, and so each contestant is measured in the same
way: at pass number `WARM`, and `STEPS` later, rank 0 writes the CPU seconds of its process, and those of its process
and its loader workers, to the file `MARKS`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from drumbeat.data.memory import Arrays

SAMPLES, FEATURES, CLASSES, BATCH = 60_000, 784, 10, 32
WARM, STEPS, ALL = 250, 1_500, 1_800
"""The pass that begins the measurement, the passes in it, and the steps of a run, which is less than an epoch."""


def samples(n: int = SAMPLES) -> Arrays:
    """Random samples in memory, as many as Fashion-MNIST has and of the same size."""
    generator = torch.Generator().manual_seed(0)
    return Arrays(torch.rand(n, FEATURES, generator=generator), torch.randint(CLASSES, (n,), generator=generator))


class Net(nn.Sequential):
    """float32 [n, 784] -> logits [n, 10]; it writes the marks."""

    def __init__(self, hidden: Sequence[int] = (64,)) -> None:
        layers: list[nn.Module] = []
        for before, after in zip([FEATURES, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.25)]
        super().__init__(*layers, nn.Linear(hidden[-1], CLASSES))
        self.passes = 0
        self.counts = int(os.environ.get("RANK", "0")) == 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        if self.passes in (WARM, WARM + STEPS) and self.counts:
            with Path(os.environ["MARKS"]).open("a") as file:
                print(json.dumps(cpu_seconds()), file=file)
        return super().forward(inputs)  # type: ignore[no-any-return]


def cpu_seconds() -> tuple[float, float]:
    """The CPU seconds of all threads of this process; and of its children, too."""
    own = time.process_time()
    children = " ".join(file.read_text() for file in Path("/proc/self/task").glob("*/children")).split()
    return own, own + sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for child in children
                          for task in Path(f"/proc/{child}/task").iterdir())


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def indexed(data: Arrays) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of tensors, as a bare loop indexes them."""
    for rows in torch.randperm(len(data)).split(BATCH)[:ALL]:
        yield data.inputs[rows], data.targets[rows]


def loader(workers: int) -> Any:
    """torch's loader of the same samples, for this rank."""
    data, ranks = samples(), int(os.environ.get("WORLD_SIZE", "1"))
    pairs = TensorDataset(data.inputs, data.targets)
    order: Any = DistributedSampler(pairs) if ranks > 1 else None
    return DataLoader(pairs, batch_size=BATCH // ranks, sampler=order, shuffle=order is None, num_workers=workers)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> None:
    """The loop that everybody writes."""
    loss_function = nn.CrossEntropyLoss()
    model.train()
    for inputs, targets in batches:
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def arithmetic(model: nn.Module, workers: int) -> None:
    """One batch again and again: nothing is loaded."""
    train(model, adam(model), [next(indexed(samples()))] * ALL)


def bare(model: nn.Module, workers: int) -> None:
    """The hand-written loop. On one rank and without loader workers it indexes tensors."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    train(model, adam(model), loader(workers) if workers or ranks > 1 else indexed(samples()))
    if ranks > 1:
        dist.destroy_process_group()


def fabric(model: Any, workers: int) -> None:
    """Lightning Fabric, as its documentation shows it."""
    from lightning.fabric import Fabric
    runner = Fabric(accelerator="cpu", devices=1)
    model, optimizer = runner.setup(model, adam(model))
    loss_function = nn.CrossEntropyLoss()
    model.train()
    for inputs, targets in runner.setup_dataloaders(loader(workers)):
        loss = loss_function(model(inputs), targets)
        runner.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def accelerate(model: Any, workers: int) -> None:
    """Accelerate, as its documentation shows it."""
    from accelerate import Accelerator
    runner = Accelerator(cpu=True)
    model, optimizer, batches = runner.prepare(model, adam(model), loader(workers))
    loss_function = nn.CrossEntropyLoss()
    model.train()
    for inputs, targets in batches:
        loss = loss_function(model(inputs), targets)
        runner.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def trainer(model: nn.Module, workers: int) -> None:
    """Lightning's Trainer, without checkpoints, logger, progress bar and checks before the run."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss = model, nn.CrossEntropyLoss()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return self.loss(self.net(batch[0]), batch[1])  # type: ignore[no-any-return]

        def configure_optimizers(self) -> Any:
            return adam(self)

    one = lightning.Trainer(accelerator="cpu", devices=1, max_steps=ALL, logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False)
    one.fit(Module(), loader(workers))


PEERS = {one.__name__: one for one in (arithmetic, bare, fabric, accelerate, trainer)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--workers", type=int, default=0, help="loader workers (default: 0)")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64], help="sizes of the hidden layers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    PEERS[args.peer](Net(args.hidden), args.workers)


if __name__ == "__main__":
    main()
