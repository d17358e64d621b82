"""The encoding that a text file which is not UTF-8 probably has, so that an error can name the command that converts
it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from drumbeat.data.regular import open_regular

MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks at the beginning of a file; the longer ones first."""

EVIDENCE = 1 << 16
"""Bytes that are looked at."""
EVIDENCE_LINES = 200
"""Lines that are looked at, from the first that is not UTF-8."""


def check_not_wide(path: Path) -> None:
    """Raises ValueError, with the command that converts it, for a text file in UTF-16 or UTF-32."""
    with open_regular(path) as file:
        wide = wide_encoding(file.read(4))
    if wide:
        raise ValueError(f"{path} is {wide.upper()}, and not UTF-8; convert it: {_conversion(path, wide)}")


def check_utf8(path: Path, lines: Iterator[bytes]) -> None:
    """Raises ValueError, which names the line, the byte, and the command that converts the file, for the first line
    that is not UTF-8."""
    start = 0
    for line, text in enumerate(lines, 1):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            evidence = b"".join([text, *islice(lines, EVIDENCE_LINES)])
            raise ValueError(f"{path}, line {line}: byte {start + error.start + 1} of the file, "
                             f"0x{text[error.start]:02x}, is not UTF-8; convert it, probably with: "
                             f"{_conversion(path, probable_encoding(evidence))}") from None
        start += len(text)


def _conversion(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t utf-8 {path.name} > {path.stem}.utf8{path.suffix}"


def wide_encoding(start: bytes) -> str:
    """UTF-16 or UTF-32, from the first bytes of a file; '' if it is neither."""
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), "")
    if marked or len(start) < 2 or b"\0" not in start[:2]:
        return marked
    return "utf-16be" if start[0] == 0 else "utf-16le"


def probable_encoding(text: bytes) -> str:
    """The encoding of a text that is neither ASCII nor UTF-8, as iconv calls it: a guess from how its bytes are
    distributed."""
    text = text[:EVIDENCE]
    runs = re.findall(rb"[\x80-\xff]+", text)
    high = b"".join(runs)
    for name in ("euc-jp", "shift_jis"):
        if _share(_decoded(text, name), "\u3040", "\u30ff") > 0.2:
            return name
    if len(high) < 2 * len(runs):  # single letters with accents
        return "cp1252" if any(0x80 <= byte < 0xa0 for byte in high) else "latin1"
    if _share(_decoded(text, "euc-kr"), "\uac00", "\ud7a3") > 0.9:
        return "euc-kr"
    for first, last, name in ((0xe0, 0xff, "cp1251"), (0xc0, 0xdf, "koi8-r")):
        if sum(first <= byte <= last for byte in high) > 0.7 * len(high):
            return name
    if _share(_decoded(text, "gb18030"), "\u4e00", "\u9fff") > 0.6:
        return "gb18030"
    return "cp1252" if any(0x80 <= byte < 0xa0 for byte in high) else "latin1"


def _decoded(text: bytes, encoding: str) -> str:
    """The text; '' if it is not in this encoding. The last character may be cut off."""
    for end in (len(text), len(text) - 1):
        try:
            return text[:end].decode(encoding)
        except UnicodeDecodeError:
            continue
    return ""


def _share(characters: Iterable[str], first: str, last: str) -> float:
    """The share of the characters beyond ASCII that lie between two others."""
    beyond = [one for one in characters if one > "\x7f"]
    return sum(first <= one <= last for one in beyond) / len(beyond) if beyond else 0.0
