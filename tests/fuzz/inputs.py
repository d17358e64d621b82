"""What is fed to the parsers: damaged files, text of a format's tokens, and any JSON."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)
"""Any value that a JSON file may hold."""


EXTREME = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
"""Integers of four bytes."""


def texts_of(*tokens: str) -> st.SearchStrategy[str]:
    """Texts of these tokens, and of others between them."""
    return st.lists(st.sampled_from(tokens) | st.text(max_size=3), max_size=30).map("".join)


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of these files, with some bytes changed, removed, repeated or added."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, min(len(content) - 1, draw(st.sampled_from([32, 200, 1 << 30]))))))
        length = draw(st.integers(0, 8))
        how = draw(st.sampled_from(["change", "extreme", "remove", "repeat", "cut", "add"]))
        if how == "change":
            content[at:at + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == "extreme":
            content[at:at + 4] = draw(st.sampled_from(EXTREME))
        elif how == "remove":
            del content[at:at + length]
        elif how == "repeat":
            content[at:at] = content[at:at + length] * draw(st.integers(1, 20))
        elif how == "cut":
            del content[at:]
        else:
            content[at:at] = draw(st.binary(max_size=8))
    return bytes(content)
