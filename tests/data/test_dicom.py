"""DICOM files: the pixels that pydicom's own functions give, for all files that its package brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drumbeat.data import dicom
from drumbeat.data.images import ImageFolder
from drumbeat.data.pixels import read_header, read_pixels
from drumbeat.data.splits import Split

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'drumbeat[dicom]'")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NO_IMAGES = {"ExplVR_BigEndNoMeta", "ExplVR_LitEndNoMeta", "UN_sequence", "empty_charset_LEI", "meta_missing_tsyntax",
             "nested_priv_SQ", "no_meta", "no_meta_group_length", "priv_SQ", "reportsi", "test-SR", "waveform_ecg",
             "reportsi_with_empty_number_tags", "rtplan", "rtplan_truncated", "rtstruct", "image_dfl_no_meta"}
DAMAGED = {"MR_truncated", "badVR", "JPEG-lossy", "JPEG2000-embedded-sequence-delimiter"}
GRAY = ("MONOCHROME1", "MONOCHROME2")


def reference(file: Path, frame: int = 0) -> NDArray[Any]:
    """The image as a share of its range, from 0 for black to 1 for white, by pydicom's functions."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    data = pydicom.dcmread(file)
    values = pixel_array(data, index=frame)
    bits = data.BitsStored
    if data.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, data)
        return values / float(np.iinfo(values.dtype).max)
    if data.PhotometricInterpretation not in GRAY:
        return values / float(2**bits - 1)
    low, high = (-2**(bits - 1), 2**(bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)
    shown = apply_voi_lut(apply_modality_lut(values, data), data)
    share = (shown.astype(float) - (low * slope + intercept)) / ((high - low) * slope)
    share = np.clip(share, 0, 1)
    return 1 - share if data.PhotometricInterpretation == "MONOCHROME1" else share


def names() -> list[str]:
    return sorted(file.stem for file in FILES.glob("*.dcm") if file.stem not in NO_IMAGES | DAMAGED)


@pytest.mark.parametrize("name", names())
def test_the_pixels_are_those_of_pydicom(name: str) -> None:
    """16 bits for each value, so that the least difference of two 16-bit values is seen."""
    file = FILES / f"{name}.dcm"
    frames = int(pydicom.dcmread(file, stop_before_pixels=True).get("NumberOfFrames") or 1)
    frame = frames - 1 if frames > 1 else None
    expected = reference(file, frame or 0)
    gray = expected.ndim == 2
    pixels = read_pixels(str(file), channels=1 if gray else 3, depth=16, frame=frame)
    assert pixels.shape == expected.shape
    assert np.array_equal(pixels, np.rint(expected * 65535))
    eight = read_pixels(str(file), channels=1 if gray else 3, depth=8, frame=frame)
    assert eight.dtype == np.uint8
    assert abs(eight - expected * 255).max() < 1
    header = read_header(str(file))
    assert (header.size, header.depth) == ((pixels.shape[1], pixels.shape[0]), 8 if _bits(file) <= 8 else 16)


def test_the_depth_of_a_palette_is_that_of_its_colors(tmp_path: Path) -> None:
    """The file has 8 bits for each number of a color, and 16 for each color."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.dcm").write_bytes((FILES / "examples_palette.dcm").read_bytes())
    samples = ImageFolder(root=str(tmp_path))
    assert samples.depth == 16
    assert samples[0][0].shape == (3, 350, 800)


def _bits(file: Path) -> int:
    """Of each value; with a palette, of each color."""
    data = pydicom.dcmread(file, stop_before_pixels=True)
    palette = data.get("RedPaletteColorLookupTableDescriptor")
    return int(data.BitsStored if palette is None else palette[2])


def test_hounsfield_units_between_two_values() -> None:
    """CT_small is rescaled by -1024."""
    file = FILES / "CT_small.dcm"
    units = pydicom.dcmread(file).pixel_array.astype(float) - 1024
    pixels = read_pixels(str(file), channels=1, depth=16, value_range=(-160, 240))
    assert np.array_equal(pixels, np.rint(np.clip((units + 160) / 400, 0, 1) * 65535))
    assert len(np.unique(pixels)) > 100


def write(file: Path, values: NDArray[Any], **tags: Any) -> Path:
    """A DICOM file of gray values."""
    data = pydicom.dcmread(FILES / "MR_small.dcm")
    for tag in ("WindowWidth", "WindowCenter"):
        del data[tag]
    data.Rows, data.Columns = values.shape
    data.PixelData = values.astype("<u2").tobytes()
    data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 0
    for tag, value in tags.items():
        setattr(data, tag, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file)
    return file


LEVELS = np.arange(4096).reshape(64, 64)


def test_twelve_bits_and_white_at_zero(tmp_path: Path) -> None:
    plain = read_pixels(str(write(tmp_path / "a.dcm", LEVELS)), channels=1, depth=16)
    assert np.array_equal(plain, np.rint(LEVELS * (65535 / 4095)))
    inverted = read_pixels(str(write(tmp_path / "b.dcm", LEVELS, PhotometricInterpretation="MONOCHROME1")), channels=1,
                           depth=16)
    assert np.array_equal(inverted, 65535 - plain)


def test_a_window_and_a_lookup_table(tmp_path: Path) -> None:
    windowed = read_pixels(str(write(tmp_path / "a.dcm", LEVELS, WindowCenter=[1024, 1], WindowWidth=[512, 1])),
                           channels=1, depth=16)
    assert np.array_equal(windowed, np.rint(np.clip((LEVELS - 1023.5) / 511 + 0.5, 0, 1) * 65535))
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 10], (np.arange(4096)[::-1] // 4).tolist()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    file = write(tmp_path / "b.dcm", LEVELS, VOILUTSequence=[item], WindowCenter=9, WindowWidth=9)
    looked_up = read_pixels(str(file), channels=1, depth=16)
    assert np.array_equal(looked_up, np.rint((4095 - LEVELS) // 4 * (65535 / 1023)))


def test_files_without_a_suffix_are_known_by_their_signature(tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.113619", "x.ima"):
        write(tmp_path / "a" / name, LEVELS)
    (tmp_path / "a" / "README").write_text("no image")
    images = ImageFolder(root=str(tmp_path), channels=1)
    assert images.paths[:] == ["a/1.2.840.113619", "a/IM000001", "a/x.ima"]
    assert images.bits == 16
    assert images.notes() == ["left out 1 without suffix"]
    assert [len(np.unique(images.pixels(index))) for index in range(3)] == [4096] * 3


def test_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / "ab"[number % 2] / f"{number}.dcm", LEVELS[:2, :2], PatientID=f"P{number // 4}")
    images = ImageFolder(root=str(tmp_path), channels=1)
    parts = {part: Split(of=images, part=part, fractions={"train": 0.6, "test": 0.4}, by="group")
             for part in ("train", "test")}
    assert sum(map(len, parts.values())) == 40
    patients = [set(part.groups()) for part in parts.values()]
    assert not patients[0] & patients[1]
    assert patients[0] | patients[1] == {f"P{number}" for number in range(10)}


def test_a_missing_package_is_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "x.dcm", LEVELS)
    monkeypatch.setattr(dicom, "find_spec", lambda name: None if name == "pydicom" else find_spec(name))
    with pytest.raises(ValueError) as caught:
        ImageFolder(root=str(tmp_path))
    assert str(caught.value) == ("DICOM files need pydicom, which is not installed; install it: "
                                 "pip install 'drumbeat[dicom]'")


def test_a_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-openjpeg",)})
    file = FILES / "MR_small_jp2klossless.dcm"
    with pytest.raises(ValueError) as caught:
        read_pixels(str(file), channels=1)
    assert str(caught.value) == (
        f"cannot read the image {file}: its pixels are compressed as JPEG 2000 Image Compression (Lossless Only), "
        "whose decoder is not installed; install it: pip install 'drumbeat[dicom]'")


@pytest.mark.parametrize(("name", "reason"), [
    ("rtplan", "the DICOM file holds no image, but RT Plan Storage"),
    ("no_meta", "the file is not a DICOM file: it has no DICM at byte 128"),
    ("MR_truncated", "The number of bytes of pixel data is less than expected (8130 vs 8192 bytes) - the dataset may "
     "be corrupted, have an invalid group 0028 element value, or the transfer syntax may be incorrect"),
    ("JPEG-lossy", "its pixels are compressed as JPEG Extended (Process 2 and 4), and cannot be decoded: pillow: "
     "Pillow does not support 'JPEG Extended' for samples with 12-bit precision"),
    ("rtdose", "it has 15 frames; give the set frame: 0 to read the first of each file, or list the frames as rows of "
     "a table (drumbeat.data.ImageTable, frame: COLUMN)"),
])
def test_files_that_are_no_image(name: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_pixels(str(FILES / f"{name}.dcm"), channels=1)
    assert str(caught.value) == f"cannot read the image {FILES / name}.dcm: {reason}"
