"""Files in folders in which other users may have made a file of that name first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from drumbeat.data.shared_folder import check_owner, open_lock


def test_a_lock_is_made_once_and_its_content_stays(tmp_path: Path) -> None:
    with open_lock(tmp_path / "lock") as lock:
        assert not os.get_inheritable(lock.fileno())
    (tmp_path / "lock").write_text("mine")
    with open_lock(tmp_path / "lock") as lock:
        assert lock.read() == b"mine"
        assert os.write(lock.fileno(), b"!") == 1, "flock on a network file system needs a file open for writing"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as error:
        open_lock(tmp_path / "lock")
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
