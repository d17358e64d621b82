"""CIFAR-10 and Fashion-MNIST from the files of their authors."""

from __future__ import annotations

import gzip
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from drumbeat.data.demo.sets import _cifar10, _fashion_mnist
from drumbeat.data.image_arrays import CIFAR10, RECORD, FashionMNIST, ImageArrays
from drumbeat.data.loader import BatchFetcher, pixels_as_tensor
from drumbeat.data.splits import Split


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Five files of two images, and one of three."""
    assert len(list(_cifar10(tmp_path, (2, 2, 2, 2, 2, 3)))) == 13
    return tmp_path


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    assert len(list(_fashion_mnist(tmp_path, (7, 4)))) == 11
    return tmp_path


def test_a_record_of_cifar10_is_its_class_then_red_green_and_blue(cifar: Path) -> None:
    record = np.arange(RECORD, dtype=np.int64) % 251
    record[0] = 9
    (cifar / "test_batch.bin").write_bytes(record.astype(np.uint8).tobytes())
    image, label = CIFAR10(root=str(cifar), train=False)[0]
    assert (label, image.size, image.mode) == (9, (32, 32), "RGB")
    assert image.getpixel((5, 2)) == tuple((1 + plane * 1024 + 2 * 32 + 5) % 251 for plane in range(3))
    assert len(CIFAR10(root=str(cifar))) == 10


def test_an_idx_file_is_read_packed_or_not(fashion: Path) -> None:
    plain = FashionMNIST(root=str(fashion))
    for file in fashion.glob("train-*"):
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = FashionMNIST(root=str(fashion))
    assert torch.equal(plain.images, packed.images)
    assert plain.images.shape == (7, 1, 28, 28)
    assert np.array_equal(plain.labels, packed.labels)
    assert plain.fingerprint() == packed.fingerprint() != FashionMNIST(root=str(fashion), train=False).fingerprint()
    assert plain.classes[9] == "Ankle boot"


def test_torchvision_reads_the_same_samples(fashion: Path) -> None:
    from torchvision import datasets

    raw = fashion / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in fashion.glob("*-ubyte"):
        file.rename(raw / file.name)
    theirs, ours = datasets.FashionMNIST(str(fashion), train=False), FashionMNIST(root=str(raw), train=False)
    assert [(np.asarray(image).tolist(), label) for image, label in theirs] == [
        (np.asarray(image).tolist(), label) for image, label in ours]
    assert list(theirs.classes) == ours.classes


@pytest.mark.parametrize("kind", ["cifar", "fashion"])
def test_a_fetched_batch_equals_its_samples(kind: str, request: pytest.FixtureRequest) -> None:
    root = str(request.getfixturevalue(kind))
    of: ImageArrays = CIFAR10(root=root) if kind == "cifar" else FashionMNIST(root=root)
    part = Split(of=of, part="train", fractions={"train": 0.7, "rest": 0.3})
    batch = BatchFetcher(part, indices=lambda positions: positions).__getitems__(range(len(part)))
    assert part.classes == of.classes
    for row, index in enumerate(part.indices.tolist()):
        image, label = of[index]
        assert torch.equal(batch.inputs[row], pixels_as_tensor(np.array(image)))
        assert int(batch.targets[row]) == label
    again: ImageArrays = pickle.loads(pickle.dumps(of))
    assert torch.equal(again.images, of.images)


def test_missing_and_damaged_files_are_named(cifar: Path, tmp_path: Path) -> None:
    (cifar / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin does not exist"):
        CIFAR10(root=str(cifar))
    for content in (b"", bytes(RECORD - 1), bytes([10]) * RECORD):
        (cifar / "data_batch_3.bin").write_bytes(content)
        with pytest.raises(ValueError, match=r"data_batch_3.bin is not a batch of CIFAR-10's binary version"):
            CIFAR10(root=str(cifar))
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte \(or .gz\) does not exist"):
        FashionMNIST(root=str(tmp_path))


def test_a_damaged_idx_file_is_named(fashion: Path) -> None:
    images, labels = fashion / "train-images-idx3-ubyte", fashion / "train-labels-idx1-ubyte"
    whole = images.read_bytes()
    for content in (whole[:-1], whole[:7], b"", b"PK" + whole[2:]):
        images.write_bytes(content)
        with pytest.raises(ValueError, match="images-idx3-ubyte is not an IDX file of bytes in 3 dimensions"):
            FashionMNIST(root=str(fashion))
    images.write_bytes(whole)
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 6]) + bytes(6))
    with pytest.raises(ValueError, match="7 images in train-images and 6 labels"):
        FashionMNIST(root=str(fashion))
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 7]) + bytes([12] * 7))
    with pytest.raises(ValueError, match="has a label 12, but there are only 10 classes"):
        FashionMNIST(root=str(fashion))
    images.unlink()
    Path(f"{images}.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(ValueError, match="cannot be read"):
        FashionMNIST(root=str(fashion))


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (2**17, 256, 256), (2, 28, 28)])
def test_a_file_that_is_far_larger_than_its_header_says_or_smaller_takes_no_memory(
        shape: tuple[int, ...], fashion: Path) -> None:
    """256 MB of zeros, compressed to 250 kB."""
    name = "train-images-idx3-ubyte"
    (fashion / name).unlink()
    with gzip.open(fashion / f"{name}.gz", "wb", compresslevel=1) as file:
        file.write(bytes([0, 0, 8, 3]) + np.array(shape, ">u4").tobytes())
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="is not an IDX file of bytes in 3 dimensions"):
            FashionMNIST(root=str(fashion))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (400 << 20 if shape[0] == 2**17 else 8 << 20)
