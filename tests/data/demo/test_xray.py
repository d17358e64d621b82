"""The demo radiographs: same seed, same bytes, on any number of processes; and a folder that is whole or not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from drumbeat.data.demo import xray as demo_xray
from drumbeat.data.demo.xray import DemoSet, write_radiographs

ROOT = Path(__file__).parents[2]

WRITE = """
import sys
from pathlib import Path
from drumbeat.data.demo.xray import write_radiographs
write_radiographs(Path(sys.argv[1]), train=int(sys.argv[2]), test=2, val=2, progress=lambda n, _: print(n, flush=True))
"""


def write_small(
    folder: Path, *, train: int = 2, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> DemoSet:
    return write_radiographs(folder, train=train, test=2, val=2, seed=seed, progress=progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_in_a_process(folder: Path, train: int) -> "subprocess.Popen[str]":
    # A fresh process: forking this one, in which torch may have started threads, is what the pool should not do here.
    command = [sys.executable, "-c", WRITE, str(folder), str(train)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("demo") / "xray", train=4).folder


def test_layout_and_counts(small: Path) -> None:
    found = {str(f.relative_to(small)): len(list(f.glob("*.jpeg"))) for f in small.glob("*/*")}
    assert found == {"train/NORMAL": 2, "train/PNEUMONIA": 2, "test/NORMAL": 1, "test/PNEUMONIA": 1,
                     "val/NORMAL": 1, "val/PNEUMONIA": 1}
    assert sorted(path.name for path in small.iterdir()) == ["README.txt", "test", "train", "val"]


def test_the_training_split_is_mildly_unbalanced() -> None:
    pictures = list(demo_xray._pictures({"train": 240, "test": 60, "val": 16}, 0))
    ill = [picture.pneumonia for picture in pictures if picture.path.parts[0] == "train"]
    assert (len(pictures), len(ill), sum(ill)) == (316, 240, 144)


def test_the_pictures_are_large_gray_jpegs_of_differing_shapes(small: Path) -> None:
    sizes = set()
    for path in small.rglob("*.jpeg"):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            assert 1080 <= max(image.size) <= 1500
            assert 0.79 < image.width / image.height < 1.46
            sizes.add(image.size)
    assert len(sizes) == 8


def test_the_readme_says_what_they_are(small: Path) -> None:
    text = (small / "README.txt").read_text()
    for words in ("synthetic", "without any medical meaning", "seed 0", "`drumbeat demo-data xray DIR`"):
        assert words in text


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(small: Path, tmp_path: Path) -> None:
    again = contents(write_small(tmp_path / "again", train=4).folder)
    assert again == contents(small)
    other = contents(write_small(tmp_path / "other", train=4, seed=1).folder)
    assert other.keys() == again.keys()
    assert not set(other.values()) & set(again.values())


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_bytes_as_one(tmp_path: Path) -> None:
    pooled = tmp_path / "pooled"
    with write_in_a_process(pooled, 12) as writer:
        assert writer.communicate(timeout=60)[0].split() == [str(n) for n in range(1, 17)]
    pictures = list(demo_xray._pictures({"train": 12, "test": 2, "val": 2}, 0))
    alone = tmp_path / "alone"
    for picture in reversed(pictures[::5]):
        (alone / picture.path).parent.mkdir(parents=True, exist_ok=True)
        demo_xray._draw(alone, picture)
        assert (alone / picture.path).read_bytes() == (pooled / picture.path).read_bytes()


def test_a_complete_dataset_is_not_changed(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    there = write_small(small, train=4)
    assert (there.folder, there.images, there.written) == (small, 8, False)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_small(tmp_path / "empty").written
    assert write_small(tmp_path / "a" / "b").written


def test_another_set_is_refused_with_what_it_is_and_what_was_asked(small: Path) -> None:
    with pytest.raises(FileExistsError, match=r"(?s)another set.*seed 0.*Asked for:.*seed 7.*Name another folder"):
        write_small(small, train=4, seed=7)


def test_a_folder_of_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(FileExistsError, match="not written by this command"):
        write_small(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        write_small(tmp_path / "thesis.tex")
    assert contents(tmp_path) == {"thesis.tex": b"do not lose me"}


def test_a_set_with_a_picture_missing_is_not_taken_for_complete(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "xray").folder
    (folder / "val/NORMAL/normal-0001.jpeg").unlink()
    with pytest.raises(FileExistsError, match="1 of its 6 pictures are missing"):
        write_small(folder)


def test_impossible_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train must be 2 or greater, but is 1"):
        write_small(tmp_path / "xray", train=1)
    with pytest.raises(ValueError, match="seed must be 0 or greater, but is -1"):
        write_small(tmp_path / "xray", seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_call_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert not (tmp_path / "xray").exists()
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_small(tmp_path / "xray", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_call_leaves_no_folder_no_worker_and_nothing_for_good(tmp_path: Path) -> None:
    folder = tmp_path / "xray"
    with write_in_a_process(folder, 400) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        writer.kill()
        # Its workers hold the other end of this pipe: it ends when the last of them has gone.
        writer.communicate(timeout=20)
    assert not folder.exists()
    (left,) = tmp_path.iterdir()

    write_small(folder)
    assert left.exists(), "it could belong to a process that is still running"
    long_ago = time.time() - 2 * demo_xray._STALE_AFTER
    os.utime(left, (long_ago, long_ago))
    write_small(tmp_path / "other")
    assert left.exists(), "it lies beside another folder's name"
    (folder / "README.txt").unlink()
    folder.rename(tmp_path / "moved")
    write_small(folder)
    assert not left.exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_pool_and_cleans_up(tmp_path: Path) -> None:
    with write_in_a_process(tmp_path / "xray", 400) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        os.killpg(writer.pid, signal.SIGINT)
        writer.communicate(timeout=20)
        assert writer.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_two_calls_at_once_end_with_one_set(tmp_path: Path) -> None:
    folder = tmp_path / "xray"

    def overtake(done: int, total: int) -> None:
        if done == total:
            assert write_small(folder).written

    assert not write_small(folder, progress=overtake).written
    assert [path.name for path in tmp_path.iterdir()] == ["xray"]
