"""Reads DICOM files through pydicom, which `pip install 'drumbeat[dicom]'` brings with the decoders of JPEG files.

The values are computed as the standard says (PS3.3, C.11): rescaled, then the first lookup table or window that the
file has for viewing, then inverted if its 0 is white.
"""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC_AT, MAGIC = 128, b"DICM"
"""Where a DICOM file has its signature."""
PALETTE = "PALETTE COLOR"
"""The photometric interpretation of values that a table turns into colors, whose bits are then those of the image."""
INSTALL = "pip install 'drumbeat[dicom]'"


def is_dicom(file: str, stream: BinaryIO) -> bool:
    """Whether a file is DICOM: by its suffix, or by its signature if it has no suffix that an image has. The stream
    stays where it is."""
    ending = file.rpartition("/")[2].rpartition(".")
    if ending[1] and not ending[2].isdecimal():
        return file.lower().endswith(SUFFIXES)
    start = stream.read(MAGIC_AT + len(MAGIC))
    stream.seek(0)
    return start[MAGIC_AT:] == MAGIC


def check_installed() -> None:
    """Raises `ValueError` if pydicom is missing."""
    if find_spec("pydicom") is None:
        raise ValueError(f"DICOM files need pydicom, which is not installed; install it: {INSTALL}")


def check_frame(frame: int | None, count: int) -> None:
    """Raises `ValueError` if a file with `count` frames does not have this one, or if it has several and none is named.
    """
    if frame is None and count > 1:
        raise ValueError(f"it has {count} frames; give the set frame: 0 to read the first of each file, or list the "
                         "frames as rows of a table (drumbeat.data.ImageTable, frame: COLUMN)")
    if frame is not None and not 0 <= frame < count:
        raise ValueError(f"it has no frame {frame}; its frames are 0 to {count - 1}")


def header(stream: BinaryIO) -> tuple[tuple[int, int], str, int]:
    """Width and height, the photometric interpretation, and 8 or 16 (more) bits per value."""
    data = _read(stream, pixels=False)
    photometric = str(data.PhotometricInterpretation)
    bits = data.RedPaletteColorLookupTableDescriptor[2] if photometric == PALETTE else _bits(data)
    return (int(data.Columns), int(data.Rows)), photometric, 8 if bits <= 8 else 16


def patient(stream: BinaryIO) -> str:
    """The PatientID; '' if the file has none."""
    return str(_read(stream, pixels=False).get("PatientID") or "").strip()


class Stored(NamedTuple):
    """An image as its file has it."""

    bits: int
    """Of each value."""
    values: NDArray[Any]
    """[H, W] or [H, W, 3]."""
    black: float
    white: float
    """The values that are black and white; NaN if the file does not tell."""


def read(stream: BinaryIO, frame: int | None, *, windowed: bool) -> Stored:
    """Reads a frame.

    With `windowed`, values are shown through the file's first lookup table or window, and black and white are the ends
    of its output. Without it, or if it has none, they are the rescaled values (Hounsfield units in CT), and black and
    white are the ends of what the stored bits can hold. Raises `ValueError`, and what pydicom raises.
    """
    data = _read(stream, pixels=True)
    from pydicom.pixels import processing

    check_frame(frame, int(data.get("NumberOfFrames") or 1))
    values = _decoded(data, frame or 0)
    photometric = str(data.PhotometricInterpretation)
    bits = _bits(data)
    if photometric == PALETTE:
        values = processing.apply_color_lut(values, data)
        return Stored(8 * values.dtype.itemsize, values, 0, float(np.iinfo(values.dtype).max))
    if values.ndim == 3:
        return Stored(bits, values, 0, float(2**bits - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rescaled = processing.apply_modality_lut(values, data)
        low, high = _ends(data, bits, values.dtype)
        if windowed and data.get("VOILUTSequence"):
            rescaled = processing.apply_voi(rescaled.astype(np.int64), data)
            low, high = 0, 2**data.VOILUTSequence[0].LUTDescriptor[2] - 1
        elif windowed and None not in (data.get("WindowWidth"), data.get("WindowCenter")):
            rescaled = processing.apply_windowing(rescaled, data)
        else:
            low, high = min(low, high), max(low, high)
    inverted = photometric == "MONOCHROME1" or data.get("PresentationLUTShape") == "INVERSE"
    return Stored(bits, rescaled, high, low) if inverted else Stored(bits, rescaled, low, high)


def _read(stream: BinaryIO, *, pixels: bool) -> Any:
    check_installed()
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it logs the traceback of each error that it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = dcmread(stream, stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise ValueError("the file is not a DICOM file: it has no DICM at byte 128") from None
    if "Rows" not in data:
        raise ValueError("the DICOM file holds no image" + (
            f", but {data.SOPClassUID.name}" if "SOPClassUID" in data else ""))
    return data


def _decoded(data: Any, frame: int) -> NDArray[Any]:
    """The stored values of a frame. A decoder that is missing is named with the command that installs it."""
    from pydicom.pixels.utils import pixel_array

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values: NDArray[Any] = pixel_array(data, index=frame)
    except (RuntimeError, NotImplementedError) as error:
        name, message = data.file_meta.TransferSyntaxUID.name, str(error)
        if "missing dependencies" in message:
            reason = f"whose decoder is not installed; install it: {INSTALL}"
        elif isinstance(error, NotImplementedError):
            reason = "which pydicom cannot decode; convert it, for instance with: gdcmconv --raw IN OUT"
        else:
            reason = f"and cannot be decoded: {message.splitlines()[-1].strip()}"
        raise ValueError(f"its pixels are compressed as {name}, {reason}") from error
    return values


def _bits(data: Any) -> int:
    return 32 if "FloatPixelData" in data else int(data.get("BitsStored") or data.get("BitsAllocated") or 8)


def _ends(data: Any, bits: int, kind: np.dtype[Any]) -> tuple[float, float]:
    """The least and the greatest rescaled value that the stored bits can hold, as pydicom's windows have it; NaN for
    floats, whose range the file does not tell."""
    if kind.kind == "f":
        return float("nan"), float("nan")
    if data.get("ModalityLUTSequence"):
        return 0.0, float(2**data.ModalityLUTSequence[0].LUTDescriptor[2] - 1)
    low, high = (0, 2**bits - 1) if data.PixelRepresentation == 0 else (-2**(bits - 1), 2**(bits - 1) - 1)
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    if slope is None or intercept is None:
        return float(low), float(high)
    return float(low * slope + intercept), float(high * slope + intercept)
