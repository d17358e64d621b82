"""Which files are taken for images, and what is told about the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from drumbeat.data import image_files
from drumbeat.data.image_files import Scan, is_image, suffix_of, suffixes
from drumbeat.data.images import ImageFolder

PICTURE = Image.new("RGB", (8, 6), (200, 100, 50))


@pytest.mark.parametrize("suffix", suffixes())
def test_every_suffix_can_be_read(suffix: str, tmp_path: Path) -> None:
    if suffix in image_files.dicom.SUFFIXES:
        pytest.skip("test_dicom reads them")
    (tmp_path / "a").mkdir()
    kinds = {".apng": "PNG", ".dib": "DIB", ".jpc": "JPEG2000", ".jpf": "JPEG2000", ".pgm": "PPM", ".pbm": "PPM"}
    PICTURE.save(tmp_path / "a" / f"x{suffix}", format=kinds.get(suffix))
    pixels = ImageFolder(root=str(tmp_path)).pixels(0)
    assert pixels.shape == (6, 8, 3)
    assert abs(pixels.astype(int) - [200, 100, 50]).max() < 25


def test_images_of_all_suffixes_and_without_one(tmp_path: Path) -> None:
    """Formerly .gif, .jfif, .avif, .jp2 and files without a suffix were left out without a word."""
    (tmp_path / "a").mkdir()
    kinds = {"x.gif": "GIF", "x.jfif": "JPEG", "x.JP2": "JPEG2000", "plain": "PNG", "v1.2": "JPEG"}
    for name, kind in kinds.items():
        PICTURE.save(tmp_path / "a" / name, format=kind)
    for name in ("x.jxl", "y.jxl", "notes.txt", "LICENSE"):
        (tmp_path / "a" / name).write_text("no image")
    images = ImageFolder(root=str(tmp_path))
    assert images.paths[:] == sorted(f"a/{name}" for name in kinds)
    assert images.notes() == ["left out 2 .jxl, 1 .txt, 1 without suffix"]


def test_what_file_servers_and_archives_add_is_no_data(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png", "@eaDir/z.png", "__MACOSX/a/x.png", "a/@eaDir/x/thumb.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(tmp_path / name)
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"x")
    images = ImageFolder(root=str(tmp_path))
    assert images.classes == ["a", "b"]
    assert images.paths[:] == ["a/x.png", "b/y.png"]
    assert images.notes() == ["left out 2 @eaDir, 1 Thumbs.db, 1 __MACOSX"]


def test_a_class_without_images_says_what_it_has(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.jxl", "b/z.jxl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PICTURE.save(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"the class folder .*b has no images \(it has 2 \.jxl, and images are \.apng"):
        ImageFolder(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"has no class folders .*; 1 images are in the folder itself, and"):
        ImageFolder(root=str(tmp_path / "a"))


def test_a_number_is_no_suffix() -> None:
    assert [suffix_of(name) for name in ("x.PNG", "x", "1.2.840", "x.png.1")] == [".png", "", "", ""]


def test_formats_that_pillow_was_built_without_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature == "webp")
    image_files.suffixes.cache_clear()
    try:
        assert ".webp" in suffixes() and ".avif" not in suffixes() and ".jp2" not in suffixes()
    finally:
        image_files.suffixes.cache_clear()


def test_a_missing_file_is_no_image(tmp_path: Path) -> None:
    assert not is_image(tmp_path / "none")
    assert str(Scan()) == ""
