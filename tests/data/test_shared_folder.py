"""Files in folders in which other users may have made a file of that name first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from drumbeat.data.shared_folder import check_owner, open_lock, without_links


def test_a_lock_is_made_once_and_its_content_stays(tmp_path: Path) -> None:
    with open_lock(tmp_path / "lock") as lock:
        assert not os.get_inheritable(lock.fileno())
    (tmp_path / "lock").write_text("mine")
    with open_lock(tmp_path / "lock") as lock:
        assert os.write(lock.fileno(), b"M") == 1, "flock on a network file system needs a file open for writing"
    assert (tmp_path / "lock").stat().st_size == len("mine")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o200), (0o002, 0o220), (0o077, 0o200)])
def test_whoever_may_not_write_to_a_lock_cannot_hold_it_either(tmp_path: Path, umask: int, mode: int) -> None:
    """flock(2) needs no permission to write, only an open file."""
    before = os.umask(umask)
    try:
        open_lock(tmp_path / "lock").close()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == mode


def test_neither_a_link_nor_a_pipe_is_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name, expected in (("link", errno.ELOOP), ("pipe", errno.ENXIO)):
        with pytest.raises(OSError) as error:
            open_lock(tmp_path / name)
        assert error.value.errno == expected
    for mode in ("ab", "wb"):
        with pytest.raises(OSError) as error, open(tmp_path / "link", mode, opener=without_links):
            pass
        assert error.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_of_this_user_or_of_root_is_trusted(tmp_path: Path) -> None:
    check_owner(tmp_path)
    check_owner(Path("/usr"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_that_another_user_made_where_everybody_may_write_is_refused(tmp_path: Path) -> None:
    folder, link = tmp_path / "theirs", tmp_path / "link"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    check_owner(folder)  # whoever may write here is trusted
    tmp_path.chmod(0o1777)  # as /tmp
    with pytest.raises(PermissionError, match="it belongs to another user") as error:
        check_owner(folder)
    assert error.value.filename == str(folder)
    check_owner(folder, 12345)
    link.symlink_to(tmp_path)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(PermissionError):
        check_owner(link)  # though it leads to a folder of this user


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")
def test_a_folder_within_one_that_another_user_made_where_everybody_may_write_is_refused(tmp_path: Path) -> None:
    """Its owner can replace it, whoever may write to the one between."""
    theirs, folder = tmp_path / "theirs", tmp_path / "theirs" / "cache"
    folder.mkdir(parents=True)
    os.chown(theirs, 12345, 12345)
    (tmp_path / "link").symlink_to(theirs)
    tmp_path.chmod(0o1777)  # as /tmp
    for path, named in ((folder, theirs), (folder / "deeper", theirs), (tmp_path / "link" / "cache", theirs)):
        path.mkdir(exist_ok=True)
        with pytest.raises(PermissionError, match="it belongs to another user") as error:
            check_owner(path)
        assert error.value.filename == str(named)
        check_owner(path, 12345)
