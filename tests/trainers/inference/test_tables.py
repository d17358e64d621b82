"""The table of predictions: headings, cells and the file, for each kind of task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.trainers.contact_sheet import save_sheet
from drumbeat.trainers.inference.tables import cell, headings, output_names, rows, text_of, write_csv
from drumbeat.trainers.tasks import Classification, MultiLabel, Regression

LOGITS = torch.tensor([[0.0, 0.0], [100.0, -100.0]])


def test_classes_and_their_probabilities() -> None:
    task = Classification(classes=["cat", "dog"])
    assert headings(task, LOGITS) == ["prediction", "probability of cat", "probability of dog"]
    assert rows(task, LOGITS) == [["cat", "0.500000", "0.500000"], ["cat", "1.000000", "0.000000"]]


def test_one_output_is_the_second_of_two_classes() -> None:
    task = Classification(classes=["bad", "good"])
    assert headings(task, torch.zeros(1, 1)) == ["prediction", "probability of bad", "probability of good"]
    assert rows(task, torch.tensor([[-100.0], [100.0]])) == [["bad", "1.000000", "0.000000"],
                                                             ["good", "0.000000", "1.000000"]]


def test_classes_without_names_have_their_numbers() -> None:
    assert output_names(Classification(classes=["cat"]), torch.zeros(1, 3)) == ["cat", "1", "2"]
    assert rows(Classification(), torch.tensor([[0.0, 100.0]]))[0][0] == "1"


def test_labels() -> None:
    task = MultiLabel(classes=["red", "round"])
    assert rows(task, torch.tensor([[100.0, 100.0], [-100.0, -100.0]])) == [
        ["red + round", "1.000000", "1.000000"], ["none", "0.000000", "0.000000"]]


def test_values_have_seven_digits_and_names_if_there_are_several() -> None:
    one, two = Regression(values=["age"]), Regression(values=["x", "y"])
    assert headings(one, torch.zeros(2)) == ["prediction"]
    assert rows(one, torch.tensor([1 / 3, 2e9])) == [["0.3333333"], ["2e+09"]]
    assert headings(two, torch.zeros(1, 2)) == ["predicted x", "predicted y"]
    assert rows(two, torch.tensor([[0.5, -12.0]])) == [["0.5", "-12"]]


def test_a_file_with_commas_quotes_and_lines_in_its_cells(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_csv(file, ["file", "prediction"], [["a,b.png", 'the "best"'], ["ä\nb", ""]])
    assert file.read_bytes().decode() == 'file,prediction\r\n"a,b.png","the ""best"""\r\n"ä\nb",\r\n'


def test_a_table_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_csv(file, ["a"], ([str(1 // number)] for number in (1, 0)))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(1)", "\tx", "\rx", "\nx",
                                  "'=1", "''@x"])
def test_what_a_spreadsheet_would_compute_has_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert text_of(cell(text)) == text


@pytest.mark.parametrize("text", ["", "cat", "-0.5", "+1e-06", "-1, 0.5", "-inf", "+nan", "'quoted'", "a=b", "1-2"])
def test_numbers_and_other_texts_are_cells_as_they_are(text: str) -> None:
    assert cell(text) == text_of(text) == text


def test_a_table_is_utf8(tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", ["file", "=heading"], [["caf\udce9.png", "-0.5"]])
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines() == ["file,'=heading", "caf\\xe9.png,-0.5"]


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
