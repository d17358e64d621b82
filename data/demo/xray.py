"""Writes a folder of synthetic chest radiographs in the layout of Kaggle's chest_xray, to try the trainer on.

Nothing is downloaded. The pictures are drawn by `drumbeat.data.demo.radiograph`, on all the cores this process may use.
"""

import multiprocessing
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from drumbeat.data.demo.radiograph import draw_radiograph
from drumbeat.data.fork import FORK

CLASSES = ("NORMAL", "PNEUMONIA")
SPLITS = ("train", "test", "val")

_NORMAL_SHARE = {"train": 0.4, "test": 0.5, "val": 0.5}
_STALE_AFTER = 3600.0
"""Seconds after which a partial folder belongs to a killed process: a whole dataset takes less than a minute."""


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """A synthetic dataset on disk."""

    folder: Path
    """Absolute path of the dataset."""
    images: int
    """The number of images or texts, in all splits and classes."""
    written: bool
    """False if the same dataset existed already."""


@dataclass(frozen=True)
class _Picture:
    path: Path
    """Relative to the dataset's folder."""
    key: tuple[int, ...]
    """Seed, split, class and number: each image has its own generator, so their order does not matter."""
    pneumonia: bool


def write_radiographs(
    folder: Path,
    *,
    train: int = 240,
    test: int = 60,
    val: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DemoSet:
    """Writes `folder`/{train,test,val}/{NORMAL,PNEUMONIA}/*.jpeg, unless they exist already.

    The images are grayscale JPEGs, 1,080 to 1,500 pixels on the longer side; 40 % of the training images and half of
    the others are NORMAL. The same seed gives the same bytes with the same versions of numpy and Pillow. The complete
    folder is renamed into place: until then the images are in a hidden folder beside it.

    Args:
        folder: where to write; parent folders are created. It may exist if it is empty.
        train, test, val: images in each split, of both classes together; at least 2.
        seed: 0 or greater.
        progress: called after each image with the number of images written and their total number.

    Raises:
        FileExistsError: `folder` has any other content than exactly this dataset.
        ValueError: a count under 2 or a negative seed.
    """
    folder = Path(folder).resolve()
    counts = {"train": train, "test": test, "val": val}
    for name, given, least in [*((split, count, 2) for split, count in counts.items()), ("seed", seed, 0)]:
        if given < least:
            raise ValueError(f"{name} must be {least} or greater, but is {given}.")
    pictures = list(_pictures(counts, seed))
    readme = _readme(counts, seed)
    if _is_there(folder, pictures, readme):
        return DemoSet(folder=folder, images=len(pictures), written=False)

    remove_stale(folder)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        for split in SPLITS:
            for label in CLASSES:
                (partial / split / label).mkdir(parents=True)
        (partial / "README.txt").write_text(readme, encoding="utf-8")
        _draw_all(partial, pictures, progress)
        written = _publish(partial, folder, pictures, readme)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return DemoSet(folder=folder, images=len(pictures), written=written)


def _pictures(counts: dict[str, int], seed: int) -> Iterator[_Picture]:
    for s, split in enumerate(SPLITS):
        normal = max(1, round(_NORMAL_SHARE[split] * counts[split]))
        for c, (label, count) in enumerate(zip(CLASSES, (normal, counts[split] - normal), strict=True)):
            for number in range(1, count + 1):
                path = Path(split, label, f"{label.lower()}-{number:04d}.jpeg")
                yield _Picture(path, (seed, s, c, number), label == "PNEUMONIA")


def _readme(counts: dict[str, int], seed: int) -> str:
    sizes = ", ".join(f"{split} {count}" for split, count in counts.items())
    return (
        "These chest radiographs are synthetic: drawn by a program for testing software, without any medical meaning.\n"
        f"They were made with seed {seed} ({sizes}) by `drumbeat demo-data xray DIR`.\n"
    )


def _is_there(folder: Path, pictures: list[_Picture], readme: str) -> bool:
    """Whether the folder holds this very set; refuses one that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    note = folder / "README.txt"
    if not folder.is_dir():
        found = "is a file"
    elif not note.is_file() or "`drumbeat demo-data xray DIR`" not in (text := note.read_text("utf-8", "replace")):
        found = "is not empty, and what it holds was not written by this command"
    elif text != readme:
        found = f"holds another set than the one asked for. It says:\n  {text.splitlines()[-1]}\n  Asked for:\n  "
        found += readme.splitlines()[-1]
    elif lost := sum(not (folder / picture.path).is_file() for picture in pictures):
        found = f"holds this set, but {lost} of its {len(pictures)} pictures are missing"
    else:
        return True
    raise FileExistsError(f"{folder} {found}\n  Nothing was changed. Name another folder, or remove this one first.")


def _draw_all(root: Path, pictures: list[_Picture], progress: Callable[[int, int], None] | None) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(pictures) // 8)  # for fewer, starting a process takes longer than drawing
    if workers < 2:
        _report((_draw(root, picture) for picture in pictures), len(pictures), progress)
        return
    pool = ProcessPoolExecutor(workers, mp_context=FORK, initializer=_start_worker)
    try:
        _report(pool.map(_draw, [root] * len(pictures), pictures, chunksize=2), len(pictures), progress)
    finally:
        pool.shutdown(cancel_futures=True)


def _report(results: Iterator[Path], total: int, progress: Callable[[int, int], None] | None) -> None:
    for done, _ in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)


def _draw(root: Path, picture: _Picture) -> Path:
    levels = draw_radiograph(np.random.default_rng(picture.key), pneumonia=picture.pneumonia)
    Image.fromarray(levels).save(root / picture.path, "JPEG", quality=90)
    return picture.path


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; and a worker ends with its parent, which a killed parent cannot see to."""
    # Freeing one large block teaches glibc to keep what is freed. Otherwise half the time goes into fresh pages.
    np.empty(30 << 20, np.uint8)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _publish(partial: Path, folder: Path, pictures: list[_Picture], readme: str) -> bool:
    """Give the finished folder its name; False if another call has just written the same set."""
    try:
        partial.rename(folder)
    except OSError:
        if not _is_there(folder, pictures, readme):
            raise
        return False
    return True


def remove_stale(folder: Path) -> None:
    """Removes the remains of killed processes beside the folder. Newer ones may belong to processes that still run."""
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        if time.time() - stale.stat().st_mtime > _STALE_AFTER:
            shutil.rmtree(stale, ignore_errors=True)
