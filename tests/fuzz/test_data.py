"""Any bytes as an image, an array of images, a table, vectors, a vocabulary or weights: a value, or a `ValueError` that
names the file."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models

from drumbeat.data.demo.sets import _cifar10, _fashion_mnist
from drumbeat.data.image_arrays import CIFAR10, FashionMNIST
from drumbeat.data.pixels import read_pixels
from drumbeat.data.sampling import _read_weights
from drumbeat.data.tables import Table
from drumbeat.data.vocabulary import Vocabulary, glove
from tests.fuzz.inputs import JSON, damaged, texts_of

pytestmark = pytest.mark.fuzz

Folders = pytest.TempPathFactory


def images() -> list[bytes]:
    """A small picture in each format and mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    found = []
    for kind, mode, options in (
            ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {}), ("PNG", "1", {}), ("JPEG", "RGB", {}),
            ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}), ("TIFF", "RGB", {}),
            ("TIFF", "L", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "F", {}),
            ("BMP", "RGB", {}), ("BMP", "P", {}), ("PPM", "RGB", {}), ("PPM", "L", {}), ("WEBP", "RGBA", {}),
            ("WEBP", "RGB", {"lossless": True}), ("GIF", "P", {})):
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16)) if mode == "I;16" else (
            Image.fromarray(pixels).convert("RGB").convert(mode))
        written = io.BytesIO()
        exif = Image.Exif()
        exif[274] = 6
        image.save(written, kind, **options, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        found.append(written.getvalue())
    return found


def check(read: Callable[[], Any], file: Path) -> None:
    """Calls `read`, which may raise only a ValueError that names the file."""
    try:
        read()
    except ValueError as error:
        assert type(error) is ValueError, repr(error)
        assert file.name in str(error) or file.parent.name in str(error)


@given(damaged(images()), st.sampled_from([1, 3]), st.sampled_from([None, 4]), st.sampled_from(["png", "jpg", "tif"]))
def test_a_damaged_image(tmp_path_factory: Folders, content: bytes, channels: int, side: int | None, suffix: str
                         ) -> None:
    file = tmp_path_factory.getbasetemp() / f"image.{suffix}"
    file.write_bytes(content)
    check(lambda: read_pixels(str(file), channels=channels, short_side=side), file)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: Folders) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    list(_fashion_mnist(folder, (3, 2)))
    list(_cifar10(folder, (1, 1, 1, 1, 1, 2)))
    return folder


IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(24)


@given(damaged([IDX, bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 2])]), st.booleans(), st.booleans())
def test_damaged_arrays(arrays: Path, content: bytes, compressed: bool, labels: bool) -> None:
    name = "t10k-labels-idx1-ubyte" if labels else "t10k-images-idx3-ubyte"
    (arrays / name).unlink(missing_ok=True)
    (arrays / f"{name}.gz").unlink(missing_ok=True)
    file = arrays / (f"{name}.gz" if compressed else name)
    file.write_bytes(gzip.compress(content)[:-1 if b"\xff" in content else None] if compressed else content)
    check(lambda: FashionMNIST(root=str(arrays), train=False), file)
    (arrays / "test_batch.bin").write_bytes(content * 200)
    check(lambda: CIFAR10(root=str(arrays), train=False), arrays / "test_batch.bin")


TABLE = b'text,label,file\n"a, ""b""",1,x.png\nc,0,"y\n.png"\n'
LINES = b'{"text": "a", "label": 1}\n\n{"text": "\\u00e9", "label": "x", "more": [1, {}]}\n'


@given(damaged([TABLE, TABLE.replace(b",", b"\t"), LINES, b"\xef\xbb\xbf" + TABLE, TABLE.replace(b"\n", b"\r\n")])
       | texts_of("text", "label", ",", "\t", '"', "\n", "\r", "{", "}", ":", "1", "[", "\0", "\\ud800").map(
           lambda text: text.encode("utf-8", "surrogatepass")),
       st.sampled_from(["csv", "tsv", "jsonl"]), st.sampled_from([None, True, False]))
def test_a_damaged_table(tmp_path_factory: Folders, content: bytes, suffix: str, quoted: bool | None) -> None:
    file = tmp_path_factory.getbasetemp() / f"table.{suffix}"
    file.write_bytes(content)
    check(lambda: Table(file, quoted).columns(), file)
    check(lambda: list(Table(file, quoted).blocks(["text", "label"])), file)


WHOLE = json.loads(Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2}, unk_token="<unk>")).to_str())


@given(st.sampled_from(sorted(WHOLE)), JSON, damaged([json.dumps(WHOLE, indent=1).encode()]))
def test_a_damaged_vocabulary(tmp_path_factory: Folders, name: str, value: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "tokenizer.json"
    for one in (json.dumps(WHOLE | {name: value}, indent=1).encode(), content):
        file.write_bytes(one)
        check(lambda: Vocabulary(file=str(file), text="a").size, file)


@given(damaged([b"3 2\na 1 2\nb 0.5 -1e-3\n", b"a 1 2\nthe end 3 4\n"]))
def test_damaged_vectors(tmp_path_factory: Folders, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "whole.json").write_text(json.dumps(WHOLE, indent=1))
    (folder / "vectors.txt").write_bytes(content)
    vocabulary = Vocabulary(file=str(folder / "whole.json"))
    check(lambda: glove(str(folder / "vectors.txt"), vocabulary), folder / "vectors.txt")


def npy() -> bytes:
    written = io.BytesIO()
    np.save(written, np.ones(4))
    return written.getvalue()


@given(damaged([npy()]), damaged([b"1\n0.5\n2\n3\n"]))
def test_damaged_weights(tmp_path_factory: Folders, array: bytes, text: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, content in (("weights.npy", array), ("weights.txt", text)):
        (folder / name).write_bytes(content)
        check(lambda name=name: _read_weights(str(folder / name), 4), folder / name)  # type: ignore[misc]
