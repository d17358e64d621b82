"""The peers of `benchmarks.epochs`: loops as the sources of the shipped configs write them, and sets in their formats.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision import transforms as v1

from drumbeat.data.image_arrays import CIFAR10
from drumbeat.models.cnn import CNN
from drumbeat.models.lstm import LSTM
from drumbeat.models.mlp import MLP

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""The real set, from Debian's package dataset-fashion-mnist."""
TRAINED = 0.8
"""The part of CIFAR-10 and of the news that is not the validation set."""
TOPICS = ("Business", "SciTech", "Sports", "World")
WORDS = 5_000
"""Different words of the drawn news."""
POOL = 100
"""Batches whose texts torchtext's BucketIterator sorts at a time."""
Batches = Callable[[], Iterable[tuple[Any, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A loop over batches of training and validation samples."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Batches
    validation: Batches
    clip_norm: float | None = None

    def train(self) -> None:
        """An epoch: one step for each batch, then loss and accuracy on the validation set."""
        self.model.train()
        total = 0.0
        for inputs, targets in self.batches():
            self.optimizer.zero_grad()
            loss = self.loss(self.model(inputs), targets)
            loss.backward()
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
            total += loss.item() * len(targets)
        self.model.eval()
        correct = 0.0
        with torch.no_grad():
            for inputs, targets in self.validation():
                outputs = self.model(inputs)
                total += self.loss(outputs, targets).item() * len(targets)
                answers = outputs > 0 if targets.is_floating_point() else outputs.argmax(1)
                correct += (answers == targets).float().mean().item() * len(targets)

    def load(self) -> None:
        """All training batches of the epoch, and nothing else."""
        for _ in self.batches():
            pass


def write_fashion(folder: Path, samples: int | None) -> None:
    """The set where torchvision looks for it: the real one, or random images if it is missing or `samples` are asked
    for; a sixth as many are the test set."""
    home = folder / "FashionMNIST" / "raw"
    home.mkdir(parents=True)
    for part, count in ("train", samples or 60_000), ("t10k", (samples or 60_000) // 6):
        for kind, shape, most in ("images-idx3", (count, 28, 28), 256), ("labels-idx1", (count,), 10):
            real, file = FASHION / f"{part}-{kind}-ubyte.gz", home / f"{part}-{kind}-ubyte"
            if real.exists() and samples is None:
                file.write_bytes(gzip.decompress(real.read_bytes()))
            else:
                head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
                file.write_bytes(head + np.random.default_rng(0).integers(0, most, shape, dtype=np.uint8).tobytes())


def fashion(folder: Path) -> Peer:
    """Three linear layers, NLLLoss and Adam on batches of 64."""
    transform = v1.Compose([v1.ToTensor(), v1.Normalize((0.5,), (0.5,))])
    train: Any = datasets.FashionMNIST(str(folder), train=True, transform=transform)
    test: Any = datasets.FashionMNIST(str(folder), train=False, transform=transform)
    model = MLP(in_features=784, hidden_sizes=[256, 128], classes=10, dropout=0, log_softmax=True)
    return Peer(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=3e-3), loss=nn.NLLLoss(),
                batches=lambda: DataLoader(train, 64, shuffle=True), validation=lambda: DataLoader(test, 64))


def write_cifar(folder: Path, samples: int) -> None:
    """Random training images, and a test image."""
    records = np.random.default_rng(0).integers(0, 256, (samples, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for number, part in enumerate(np.array_split(records, 5), 1):
        part.tofile(folder / f"data_batch_{number}.bin")
    records[:1].tofile(folder / "test_batch.bin")


class DrawnCIFAR10(datasets.CIFAR10):
    """torchvision's set with the images of our files; it checks the digests of its own."""

    def __init__(self, folder: Path, transform: Callable[[Any], Any]) -> None:
        datasets.VisionDataset.__init__(self, str(folder), transform=transform)
        drawn = CIFAR10(root=str(folder))
        self.data = drawn.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = drawn.labels.tolist()


def cifar(folder: Path, batch_size: int) -> Peer:
    """Three convolutions, SGD, flips and rotations. Validation images are not augmented, as ours."""
    plain = [v1.ToTensor(), v1.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    augmented = DrawnCIFAR10(folder, v1.Compose([v1.RandomHorizontalFlip(), v1.RandomRotation(20), *plain]))
    order = np.random.default_rng(0).permutation(len(augmented)).tolist()
    cut = round(TRAINED * len(order))
    train: Any = Subset(augmented, order[:cut])
    validation: Any = Subset(DrawnCIFAR10(folder, v1.Compose(plain)), order[cut:])
    model = CNN(classes=10, hidden_size=512)
    return Peer(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.01), loss=nn.CrossEntropyLoss(),
                batches=lambda: DataLoader(train, batch_size, shuffle=True),
                validation=lambda: DataLoader(validation, batch_size))


def write_news(folder: Path, samples: int) -> None:
    """Stories of made-up words as train.csv: 74 words at the median, 600 at most."""
    draw = np.random.default_rng(0)
    lengths = np.minimum(draw.lognormal(4.3, 0.7, samples), 600).astype(np.int64) + 1
    with open(folder / "train.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "content", *TOPICS])
        for number, length in enumerate(lengths.tolist()):
            drawn = (WORDS ** draw.random(length)).astype(np.int64).tolist()  # by Zipf's law
            table.writerow([number, " ".join(f"word{word:x}" for word in drawn), *draw.integers(0, 2, 4).tolist()])


class SourceLSTM(LSTM):
    """The model as its sources write it: it reads the padding too, or packed texts."""

    def __init__(self, *, packed: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.packed = packed

    def forward(self, texts: tuple[Tensor, Tensor]) -> Tensor:
        ids, lengths = texts
        words: Any = self.embedding(ids)
        if self.packed:
            words = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(words)
        return self.head(self.dropout(last[-1]))  # type: ignore[no-any-return]


class Stories:
    """Stories as torchtext has them: lists of words, of which a batch is padded to its longest and looked up."""

    def __init__(self, file: Path, batch_size: int, *, bucketed: bool) -> None:
        with open(file, encoding="utf-8", newline="") as source:
            rows = list(csv.DictReader(source))
        self.words = [row["content"].lower().split() for row in rows]
        self.labels = [[float(row[topic]) for topic in TOPICS] for row in rows]
        counts = Counter(chain.from_iterable(self.words))
        known = sorted(word for word, count in counts.items() if count >= 2)
        self.numbers = {word: number for number, word in enumerate(["<unk>", "<pad>", *known])}
        self.batch_size = batch_size
        self.bucketed = bucketed
        self.cut = round(TRAINED * len(rows))

    def batches(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Those of the training set: of random stories, or of stories of similar length."""
        order = random.sample(range(self.cut), self.cut)
        if not self.bucketed:
            yield from self._batches(order)
            return
        for start in range(0, len(order), pool := POOL * self.batch_size):
            chosen = sorted(order[start:start + pool], key=lambda row: len(self.words[row]))
            parts = [chosen[first:first + self.batch_size] for first in range(0, len(chosen), self.batch_size)]
            for part in random.sample(parts, len(parts)):
                yield from self._batches(part)

    def validation(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        yield from self._batches(range(self.cut, len(self.words)))

    def _batches(self, rows: Any) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        for start in range(0, len(rows), self.batch_size):
            chosen = rows[start:start + self.batch_size]
            lengths = [len(self.words[row]) for row in chosen]
            width = max(lengths)
            padded = [self.words[row] + ["<pad>"] * (width - len(self.words[row])) for row in chosen]
            ids = torch.tensor([[self.numbers.get(word, 0) for word in row] for row in padded])
            yield (ids, torch.tensor(lengths)), torch.tensor([self.labels[row] for row in chosen])


def text(file: Path, *, bucketed: bool, packed: bool) -> Peer:
    """An LSTM with 256 hidden units, Adam, and a loss for each topic, on batches of 128."""
    stories = Stories(file, 128, bucketed=bucketed)
    model = SourceLSTM(packed=packed, vocab_size=len(stories.numbers), classes=4, padding_idx=1)
    return Peer(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3), loss=nn.BCEWithLogitsLoss(),
                batches=stories.batches, validation=stories.validation, clip_norm=1.0)
