"""A new file takes the place of an old one, whatever another user has put there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from drumbeat.trainers.contact_sheet import save_sheet
from drumbeat.trainers.inference.tables import write_csv
from drumbeat.trainers.new_file import replacing


def test_the_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("old")
    with replacing(tmp_path / "a.pt") as first, replacing(tmp_path / "a.pt") as second:
        assert first != second
        assert {path.suffix for path in (first, second)} == {".pt"}
        first.write_text("first")
        second.write_text("second")
        assert (tmp_path / "a.pt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_text() == "first"


def test_after_an_error_the_old_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.pt") as new:
        new.write_text("half")
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_text() == "old"


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A link that another user made in a shared folder, to a file of this user."""
    precious = tmp_path / "authorized_keys"
    precious.write_text("ssh-ed25519 ...")
    for name in ("table.csv", "sheet.png"):
        (tmp_path / name).symlink_to(precious)
    write_csv(tmp_path / "table.csv", ["a"], [["b"]])
    save_sheet(Image.new("L", (8, 8)), tmp_path / "sheet.png")
    assert precious.read_text() == "ssh-ed25519 ..."
    assert not any((tmp_path / name).is_symlink() for name in ("table.csv", "sheet.png"))
