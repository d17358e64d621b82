"""The data pipeline compared with torchvision's ImageFolder and DataLoader, and with torch's DistributedSampler.

    python -m benchmarks.data [--rounds N] [--only WORD] [--json]

All measurements use one core, like a loader process. The contestants alternate (A B A B); the medians over the rounds
are shown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as v1

from benchmarks.report import Row, show
from drumbeat.configs.load import load
from drumbeat.data.cache import open_cache
from drumbeat.data.demo.xray import write_radiographs
from drumbeat.data.images import ImageFolder
from drumbeat.data.loader import BatchFetcher, ShardedBatchSampler, batches
from drumbeat.data.order import Stream
from drumbeat.data.sampling import LengthBuckets
from drumbeat.data.schedule import Schedule
from drumbeat.data.text import padding_waste
from drumbeat.trainers.build import build_batch_transforms, build_sets

BATCH = 16
IMAGES = 96
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contestant (default: 5)")
    parser.add_argument("--only", default="", metavar="WORD", help="only comparisons with this word in their names")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    limits: list[str] = []
    for name, compare in COMPARISONS.items():
        if args.only in name:
            print(name, file=sys.stderr)
            for row, limit in compare(args.rounds):
                rows.append(row)
                limits += [limit] if limit not in limits else []
    show(rows, as_json=args.json, limit="\n".join(limits))


def alternating(rounds: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float]:
    """Medians of alternating measurements, after one warm-up of each."""
    ours(), peer()
    readings = [(ours(), peer()) for _ in range(rounds)]
    return statistics.median(own for own, _ in readings), statistics.median(other for _, other in readings)


def radiographs(rounds: int) -> Iterator[tuple[Row, str]]:
    """From files to normalized batches with the training transforms of resnet50_xray, without and with the cache:
    images per second of CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_radiographs(home / "xray", train=IMAGES, test=2, val=2)
        plain = datasets.ImageFolder(str(home / "xray" / "train"), v1.Compose([
            v1.RandomResizedCrop(300, scale=(0.8, 1.1)), v1.RandomRotation(10), v1.ColorJitter(0.4, 0.4, 0.4),
            v1.RandomHorizontalFlip(), v1.CenterCrop(256), v1.ToTensor(), v1.Normalize(MEAN, STD)]))
        config = load("resnet50_xray", [f"data.{name}.root={home}/xray/{split}" for name, split in (
            ("train", "train"), ("validation", "test"), ("test", "val"))]).config
        sets = build_sets(config)
        normalize = build_batch_transforms(config)
        images = sets.train
        assert isinstance(images, ImageFolder)
        cache = open_cache(images, home / "cache", workers=1)

        def ours(cached: bool, passes: int) -> float:
            images.cache = cache if cached else None
            table = Schedule(len(images), BATCH, passes)
            fetch = BatchFetcher(images, indices=Stream(len(images), 0, 0).indices,
                                 transforms=sets.train_transforms, seed=0)
            began = time.process_time()
            for batch in batches(fetch, ShardedBatchSampler(table, rank=0, world_size=1), workers=0, pin_memory=False):
                normalize(batch.inputs)
            return table.steps * BATCH / (time.process_time() - began)

        def peer() -> float:
            began = time.process_time()
            for _ in DataLoader(plain, BATCH, shuffle=True):
                pass
            return len(plain) / (time.process_time() - began)

        jpeg = float(images.stamps[:, 0].sum()) / len(images)
        matrix = np.array([[0.95, 0.1, 3], [-0.1, 0.95, 30]])
        floors = {
            False: ("Decoding in Pillow, and shrinking to the side that the transforms need", images.decode,
                    f"Huffman decoding, about 110 MB of JPEG per second and core; an image is {jpeg / 1e3:.0f} kB"),
            True: ("One warp, without brightness and normalizing", lambda index: cv2.warpAffine(
                np.asarray(cache.pixels(index)), matrix, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
                f"reading {cache.nbytes / len(images) / 1e3:.0f} kB per image")}
        for cached, (what, floor, least) in floors.items():
            own, other = alternating(rounds, lambda cached=cached: ours(cached, 10 if cached else 1),  # type: ignore[misc]
                                     peer)
            source = "the cache" if cached else "files"
            began = time.process_time()
            for index in range(len(images)):
                floor(index)
            taken = (time.process_time() - began) / len(images)
            limit = (f"Limit of {source}: {least}. {what} takes {1e6 * taken:.0f} us of an image's {1e6 / own:.0f}; "
                     f"that alone would be {1 / taken / other:.1f} times as fast as the peer.")
            yield Row(name=f"radiographs from {source}, augmented, to 256 px", unit="images/s/core", ours=own,
                      peer=other, peer_name="torchvision ImageFolder", ratio=own / other,
                      wanted=30 if cached else 3), limit


ORDER = """
import resource, sys, time
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = int(sys.argv[2])
if sys.argv[1] == "ours":
    import numpy as np
    from drumbeat.data.order import Stream
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    Stream(n, 0, 0).indices(np.arange(256))
else:
    from torch.utils.data import DistributedSampler
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    iterator = iter(DistributedSampler(range(n), num_replicas=8, rank=0))
    [next(iterator) for _ in range(256)]
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def order(rounds: int) -> Iterator[tuple[Row, str]]:
    """Time and memory for the first 256 samples of an epoch."""
    limit = ("Limit of the order: almost none, because it is arithmetic. DistributedSampler was not measured at 1e9: a "
             "list of 1e9 Python integers takes about 60 GB on every rank.")
    peer = [_order("torch", 50_000_000)]
    for n in (50_000_000, 1_000_000_000):
        ours = [_order("ours", n) for _ in range(rounds)]
        for name, unit, item in (("time", "ms", 0), ("memory", "MB", 1)):
            own, other = statistics.median(one[item] for one in ours), peer[0][item]
            yield Row(name=f"order of {n:.0e} samples, {name} to start", unit=unit, ours=own, peer=other,
                      peer_name="DistributedSampler, 5e+07", ratio=other / max(own, 1e-3)), limit


def _order(who: str, n: int) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", ORDER, who, str(n)], check=True, capture_output=True, text=True)
    seconds, kilobytes = done.stdout.split()
    return float(seconds) * 1e3, float(kilobytes) / 1e3


def resume(rounds: int) -> Iterator[tuple[Row, str]]:
    """The first batch after a seek to step 10, and to step 10,000,000."""
    n = 50_000_000
    table = Schedule(n, 256, 60)

    def first(step: int) -> float:
        began = time.perf_counter()
        positions = next(iter(ShardedBatchSampler(table, rank=0, world_size=1, first=step)))
        Stream(n, 0, 0).indices(np.arange(positions.start, positions.stop))
        return (time.perf_counter() - began) * 1e6

    late, early = alternating(max(rounds, 51), lambda: first(10_000_000), lambda: first(10))
    yield Row(name="resume at step 10,000,000", unit="us", ours=late, peer=early, peer_name="at step 10",
              ratio=early / late), "Limit of resuming: a seek, whatever the step."


def padding(rounds: int) -> Iterator[tuple[Row, str]]:
    """The fraction of padding in a batch of texts: with length buckets, and with random batches."""
    lengths = np.minimum(np.random.default_rng(0).lognormal(4.3, 0.7, 100_000), 600).astype(np.int64) + 1
    table, stream = Schedule(len(lengths), 128, 1), Stream(len(lengths), 0, 0)
    windows = LengthBuckets(table, stream, lengths, batches=50, rank=0, world_size=1)
    own = padding_waste(lengths, (stream.indices(positions) for positions in windows))
    other = padding_waste(lengths, (stream.indices(np.array(table.positions(step))) for step in range(table.steps)))
    yield Row(name="padding in batches of 128 texts", unit="%", ours=100 * own, peer=100 * other,
              peer_name="random batches", ratio=other / own), (
        "Limit of padding: 0 % for batches of texts of the same length, which would not be random.")


def to_the_device(rounds: int) -> Iterator[tuple[Row, str]]:
    """Bytes copied to the device for a batch of grayscale images."""
    ours, peer = (torch.zeros(BATCH, 1, 256, 256, dtype=torch.uint8), torch.zeros(BATCH, 3, 256, 256))
    yield Row(name=f"bytes to the device, batch of {BATCH} grayscale images", unit="MB", ours=ours.nbytes / 1e6,
              peer=peer.nbytes / 1e6, peer_name="float32, three channels", ratio=peer.nbytes / ours.nbytes), (
        "Limit of the copy to the device: one byte per pixel, as in the file.")


PATHS = """
import os, sys
n = 1_000_000
names = (f"some/class/folder/patient-{i:09d}-view-{i % 4}.jpeg" for i in range(n))
if sys.argv[1] == "ours":
    from drumbeat.data.packed import PackedStrings
    paths = PackedStrings(names)
else:
    paths = list(names)
def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))
import gc
gc.collect()
if os.fork() == 0:
    before = private()
    for index in range(n):
        paths[index]
    print((private() - before) / 1e3)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


def paths(rounds: int) -> Iterator[tuple[Row, str]]:
    """The growth of a forked loader worker's memory when it reads each of a million paths."""
    own, other = (statistics.median(float(subprocess.run([sys.executable, "-c", PATHS, who], check=True, text=True,
                                                         capture_output=True).stdout) for _ in range(min(rounds, 3)))
                  for who in ("ours", "list"))
    yield Row(name="growth of a worker with 1,000,000 paths", unit="MB", ours=own, peer=other, peer_name="list of str",
              ratio=other / max(own, 0.1)), "Limit of a worker's growth: 0, if reading changes no memory page."


COMPARISONS: dict[str, Callable[[int], Iterator[tuple[Row, str]]]] = {
    "radiographs": radiographs, "order": order, "resume": resume, "padding": padding, "device": to_the_device,
    "paths": paths,
}

if __name__ == "__main__":
    main()
