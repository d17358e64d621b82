"""`drumbeat predict`: its table and its contact sheet, unreadable inputs, and one screen for each error."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.predict import run as predict
from drumbeat.trainers.inference.predictor import Predictor
from tests.trainers.saved_runs import IMAGES, REGRESSION, TEXTS, draw_images, run_of, write_table, write_texts


def table_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_folder_with_a_file_that_cannot_be_read(images: RunDir, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test" / "cat" / "9.png").write_bytes(b"nothing")
    text = predict(Predictor.from_run(images.path), [tmp_path / "test"], tmp_path / "out.csv", tmp_path / "out.png")
    rows = table_of(tmp_path / "out.csv")
    correct = sum(row["actual"] == row["prediction"] for row in rows)
    assert len(rows) == 11
    assert text.startswith("predicted  11, 1 left out\n")
    assert f"correct    {correct / 11:.0%} ({correct}/11 with a label)\n" in text
    assert "cat/9.png: the file is text: nothing" in " ".join(capsys.readouterr().err.split())
    with Image.open(tmp_path / "out.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert ((95, 211, 141) in colours, (255, 128, 112) in colours) == (correct > 0, correct < 11)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_hostile_names_of_files_and_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capfd: pytest.CaptureFixture[str]) -> None:
    """A formula, an escape sequence, a byte that is not UTF-8 and mathematics; a pipe is left out. The table can be
    predicted again."""
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "cat").rename(tmp_path / split / "=$1+\\cmd")
        (tmp_path / split / "dog").rename(tmp_path / split / "caf\udce9\x1b[2J")
    (tmp_path / "test" / "=$1+\\cmd" / "0.jpeg").rename(tmp_path / "-x.jpeg")
    (tmp_path / "test" / "=$1+\\cmd" / "1.png").rename(tmp_path / "caf\udce9.png")
    os.mkfifo(tmp_path / "test" / "pipe.png")
    run = run_of(tmp_path, IMAGES)
    assert main(["predict", str(run.path), "./-x.jpeg", "caf\udce9.png"]) == 0
    assert [row["file"] for row in table_of(tmp_path / "predictions.csv")] == ["'-x.jpeg", "caf\\xe9.png"]
    (tmp_path / "table.csv").write_text("file,actual\n'-x.jpeg,'=$1+\\cmd\n")
    assert main(["predict", str(run.path), "table.csv", "--out", "again.csv"]) == 0
    assert [row["actual"] for row in table_of(tmp_path / "again.csv")] == ["'=$1+\\cmd"]
    assert main(["predict", str(run.path), "test"]) == 0
    (tmp_path / "test" / "pipe.png").unlink()
    assert main(["evaluate", str(run.path)]) == 0
    shown = capfd.readouterr()
    assert "pipe.png: it is a pipe, and not a regular file" in " ".join(shown.err.split())
    assert "caf\\xe9\\x1b[2J" in shown.out
    assert "\x1b" not in shown.out + shown.err


def test_values_from_a_table(tmp_path: Path) -> None:
    draw_images(tmp_path)
    write_table(tmp_path)
    predictor = Predictor.from_run(run_of(tmp_path, REGRESSION).path)
    predict(predictor, [tmp_path / "table.csv"], tmp_path / "out.csv", tmp_path / "out.png")
    rows = table_of(tmp_path / "out.csv")
    assert list(rows[0]) == ["file", "actual", "predicted x", "predicted y"]
    assert [row["actual"] for row in rows][:3] == ["0, 0", "1, 0.1", "2, 0.4"]
    (one,) = predictor([tmp_path / rows[0]["file"]])
    assert one.values == pytest.approx({name: float(rows[0][f"predicted {name}"]) for name in ("x", "y")}, rel=1e-4)


def test_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(tmp_path)
    predictor = Predictor.from_run(run_of(tmp_path, TEXTS).path)
    text = predict(predictor, [tmp_path / "test.csv"], tmp_path / "out.csv", tmp_path / "out.png")
    rows = table_of(tmp_path / "out.csv")
    assert list(rows[0]) == ["file", "actual", "prediction", "probability of Sports", "probability of World"]
    assert [row["actual"] for row in rows][:4] == ["Sports", "World", "Sports + World", "none"]
    assert "sheet" not in text
    (one,) = predictor(["the ball and the goal"])
    assert one.values == pytest.approx({name: float(rows[0][f"probability of {name}"])
                                        for name in ("Sports", "World")}, abs=1e-5)
    (tmp_path / "more.txt").write_text("a war\n\nthe goal\n")
    predict(predictor, [tmp_path / "more.txt"], tmp_path / "out.csv", tmp_path / "out.png")
    assert [row["file"].rpartition(":")[2] for row in table_of(tmp_path / "out.csv")] == ["1", "3"]


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere", "there is no file or folder"),
    ("empty", "this folder is empty"),
    ("texts", "there are no images in this folder"),
    ("mixed", "some sub-folders are classes of the run, and some are not"),
    ("a.txt", "the run's model takes images"),
    ("b.csv", "no column of this table names image files"),
    ("damaged.png", "none of the inputs can be read"),
])
def test_errors_are_one_screen_and_write_nothing(images: RunDir, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a text\n")
    shutil.copytree(tmp_path / "test", tmp_path / "mixed")
    (tmp_path / "mixed" / "dog").rename(tmp_path / "mixed" / "wolf")
    (tmp_path / "a.txt").write_text("a text\n")
    (tmp_path / "b.csv").write_text("content,label\na text,cat\n")
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=message) as raised:
        predict(Predictor.from_run(images.path), [tmp_path / name], tmp_path / "out.csv", tmp_path / "out.png")
    assert len(str(raised.value).splitlines()) <= 24
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.png").exists()


def test_a_table_is_not_written_over_by_the_sheet(images: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the table and the sheet are the same file"):
        predict(Predictor.from_run(images.path), [tmp_path / "test"], tmp_path / "out.png", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_images_for_a_model_of_texts(tmp_path: Path) -> None:
    write_texts(tmp_path)
    draw_images(tmp_path)
    predictor = Predictor.from_run(run_of(tmp_path, TEXTS).path)
    with pytest.raises(UserError, match="the run's model reads texts, but this is a folder"):
        predict(predictor, [tmp_path / "test"], tmp_path / "out.csv", tmp_path / "out.png")
    (tmp_path / "no.csv").write_text("text\nhello\n")
    with pytest.raises(UserError, match="there is no column 'content'"):
        predict(predictor, [tmp_path / "no.csv"], tmp_path / "out.csv", tmp_path / "out.png")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_the_command(images: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                  capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(images.path), "test", "--out", "new/table.csv"]) == 0
    assert capfd.readouterr().out.endswith("table      new/table.csv\nsheet      new/table.png\n")
    assert len(table_of(tmp_path / "new" / "table.csv")) == 11
    assert main(["predict", str(images.path), "nowhere"]) == 2
    assert capfd.readouterr().err.startswith("error: there is no file or folder 'nowhere'\n")
