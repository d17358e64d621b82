"""Regression datasets: synthetic images, and images listed in a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.data.regression import FillLevel, ImageRegression
from drumbeat.data.splits import Split


def test_a_picture_is_white_down_to_its_level() -> None:
    levels = FillLevel(n=200, image_size=90)
    seen = []
    for image, level in (levels[index] for index in range(200)):
        assert (image.size, image.mode, level.shape) == ((90, 90), "L", (1,))
        rows = np.asarray(image)[:, 7]
        white = int(level * 90)
        assert (rows[:white] == 255).all() and (rows[white:] == 0).all()
        seen.append(float(level))
    assert 0 <= min(seen) < 0.03
    assert 0.97 < max(seen) < 1
    assert np.mean(seen) == pytest.approx(0.5, abs=0.05)


def test_pictures_depend_on_their_number_and_the_seed() -> None:
    one, same, other = FillLevel(n=10), FillLevel(n=20), FillLevel(n=10, seed=1)
    assert one[3][1] == same[3][1] != other[3][1]
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    with pytest.raises(IndexError):
        one[10]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (4, 3), (number * 100, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    file = tmp_path / "levels.csv"
    file.write_text("name,level,width,note\n0.png,0.25,1e2,\n1.png,-3,7,x\n2.png,1,0.5,y\n")
    return file


def test_a_table_of_images_and_numbers(table: Path) -> None:
    root = str(table.parent / "images")
    images = ImageRegression(file=str(table), image="name", columns=["level", "width"], root=root)
    assert len(images) == 3
    assert images.value_names == ["level", "width"]
    image, target = images[1]
    assert image.getpixel((0, 0)) == (100, 0, 0)
    assert target.tolist() == [-3, 7]
    assert list(images.names()) == ["0.png", "1.png", "2.png"]
    assert Split(of=images, part="all", fractions={"all": 1.0}).value_names == ["level", "width"]


@pytest.mark.parametrize(("row", "message"), [
    ("1.png,much,7,x", "line 3, column 'level': 'much' is not a number; correct it, or remove the row"),
    ("1.png,,7,x", "line 3, column 'level': '' is not a number"),
    ("1.png,inf,7,x", "line 3, column 'level': 'inf' is not a number"),
    ("9.png,1,7,x", "line 3, column 'name': there is no image '9.png' in"),
    ("1.png,1,x", "line 3: 3 fields, but the header has 4 columns"),
])
def test_a_bad_row_is_reported_with_its_line(table: Path, row: str, message: str) -> None:
    table.write_text(table.read_text().replace("1.png,-3,7,x", row))
    with pytest.raises(ValueError) as caught:
        ImageRegression(file=str(table), image="name", columns=["level"], root=str(table.parent / "images"))
    assert message in str(caught.value)


def test_columns_and_files_must_exist(table: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no column 'levle'; did you mean 'level'\?"):
        ImageRegression(file=str(table), image="name", columns=["levle"])
    with pytest.raises(ValueError, match="a list of one column or more"):
        ImageRegression(file=str(table), image="name", columns="level")
    with pytest.raises(FileNotFoundError, match=r"none.csv does not exist"):
        ImageRegression(file=str(table.parent / "none.csv"), columns=["level"])


def test_a_damaged_image_is_named(table: Path) -> None:
    images = ImageRegression(file=str(table), image="name", columns=["level"], root=str(table.parent / "images"))
    (table.parent / "images" / "2.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read the image .*2.png"):
        images[2]
