"""Errors of a user's code name the line of their code, and the sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from drumbeat.data.images import read_pixels
from drumbeat.data.user_code import (
    LONGEST,
    DamagedSampleError,
    SampleError,
    UnreadableError,
    name_of,
    place,
    reason,
    sample_error,
)


def error_of(function: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as raised:
        function()
    return raised.value


def fails() -> Any:
    return json.loads("no")  # raised in the standard library


LINE = fails.__code__.co_firstlineno + 1


def test_the_innermost_line_of_the_users_code() -> None:
    assert place(error_of(fails)) == f"tests/data/test_user_code.py:{LINE}, in fails"
    assert reason(error_of(fails)) == ("JSONDecodeError: Expecting value: line 1 column 1 (char 0) "
                                       f"(tests/data/test_user_code.py:{LINE}, in fails)")
    assert place(ValueError("never raised")) == ""


def test_a_long_message_of_many_lines_is_one_short_line() -> None:
    text = reason(KeyError("a\nb" * 1000))
    assert "\n" not in text and len(text) < LONGEST + 50


def test_an_error_of_drumbeats_own_is_its_message_alone() -> None:
    namespace: dict[str, Any] = {"__name__": "drumbeat.data.images", "read_pixels": read_pixels}
    exec("def read():\n    read_pixels('none.png', channels=1)", namespace)  # without a frame of this file
    error = error_of(namespace["read"])
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next and error.__traceback__.tb_next.tb_next
    assert reason(error).startswith("cannot read the image none.png: ")


def lost() -> Any:
    raise OSError(5, "Input/output error")


def truncated() -> Any:
    raise OSError("image file is truncated")


@pytest.mark.parametrize(("function", "was_read", "expected"), [
    (lost, False, UnreadableError), (truncated, False, DamagedSampleError), (truncated, True, DamagedSampleError),
    (fails, False, DamagedSampleError),  # a library refuses the file
    (fails, True, SampleError),  # a library refuses what a transform passes
    (lambda: read_pixels("none.png", channels=1), False, UnreadableError),  # the file may be there again
    (lambda: [][5], False, SampleError), (lambda: None.size, False, SampleError),  # type: ignore[attr-defined]
    (lambda: json.loads(5), False, SampleError),  # type: ignore[arg-type]
])
def test_a_file_that_cannot_be_read_is_no_error_of_the_code(function: Callable[[], Any], was_read: bool,
                                                            expected: type[SampleError]) -> None:
    assert sample_error(error_of(function), was_read=was_read) is expected


class Listed:
    def names(self) -> list[str]:
        return ["a.png", "b.png"]


class Streamed:
    def names(self) -> Any:
        return iter(["a.png", "b.png"])


def test_names_of_samples() -> None:
    assert [name_of(samples, 1) for samples in (Listed(), Streamed(), object())] == ["b.png", "b.png", ""]
    assert name_of(Listed(), 5) == name_of(Streamed(), 5) == ""
