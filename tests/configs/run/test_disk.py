"""A disk that does not take what is written: who waits, who does not, and for how long."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from drumbeat.configs.run import disk
from drumbeat.configs.run.disk import persist, wait_for_disk


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(disk, "SECONDS_BETWEEN_TRIES", 0.01)
    yield
    wait_for_disk(0)


def failing(times: int, number: int = errno.ENOSPC) -> tuple[list[int], object]:
    tries: list[int] = []

    def write() -> str:
        tries.append(1)
        if len(tries) <= times:
            raise OSError(number, "No space left on device")
        return "written"

    return tries, write


def test_a_process_that_waits_tries_until_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    tries, write = failing(3)
    wait_for_disk(60)
    assert persist(write) == "written"  # type: ignore[arg-type]
    assert len(tries) == 4
    assert capsys.readouterr().err == "waiting for the disk: [Errno 28] No space left on device\n"


def test_a_command_does_not_wait() -> None:
    tries, write = failing(3)
    with pytest.raises(OSError, match="No space"):
        persist(write)  # type: ignore[arg-type]
    assert len(tries) == 1


def test_patience_ends() -> None:
    tries, write = failing(10**9)
    wait_for_disk(0.05)
    with pytest.raises(OSError, match="No space"):
        persist(write)  # type: ignore[arg-type]
    assert len(tries) > 1


def test_an_error_that_does_not_pass_is_not_waited_for() -> None:
    _, write = failing(1, errno.EBADF)
    wait_for_disk(60)
    with pytest.raises(OSError, match="No space"):
        persist(write)  # type: ignore[arg-type]


def test_the_reason_of_a_wait_and_its_end_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    reasons: list[str] = []
    wait_for_disk(60, reasons.append)
    try:
        failures = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")]

        def write() -> int:
            if failures:
                raise failures.pop(0)
            return 7

        assert persist(write) == 7
        assert persist(write) == 7
    finally:
        wait_for_disk(0)
    assert reasons == ["waiting for the disk: [Errno 28] No space left on device", ""]
    assert capsys.readouterr().err == ""
