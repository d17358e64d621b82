"""`drumbeat demo-data KIND DIR`: what it prints, and when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.load import ROOT, load
from drumbeat.data.demo.demo import READ_BY, main
from drumbeat.data.demo.sets import SETS


def test_every_kind_names_the_shipped_configs_that_read_it() -> None:
    """And their default data.root, so that the printed command needs no data.root if the set is there."""
    assert set(READ_BY) == {"xray", *SETS}
    for configs, folder in READ_BY.values():
        for name in configs.split(", "):
            assert load(ROOT / "configs" / f"{name}.yaml").config.data.root == str(Path(folder).absolute())


def test_the_command_that_trains_on_the_set_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["news", "my news"]) == 0
    assert capsys.readouterr().out == (
        f"2,400 synthetic {SETS['news'].things} written to {tmp_path}/my news\n"
        "read by    lstm_news, multilayer_lstm_news, bilstm_news\n"
        "train      drumbeat run lstm_news data.root='my news'\n")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "my news").rename(tmp_path / "datasets" / "news")
    assert main(["news", "datasets/news"]) == 0
    out = capsys.readouterr().out
    assert f"already exist in {tmp_path}/datasets/news\n" in out
    assert out.endswith("\ntrain      drumbeat run lstm_news\n")


@pytest.mark.parametrize("kind", ["news", "xray"])
def test_a_folder_with_other_content_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    assert main([kind, str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert str(tmp_path) in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_an_error_with_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["news", "/proc/news"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"error: the {SETS['news'].things} cannot be written: ")
    assert lines[1].startswith("  where  /proc/")
    assert lines[2:] == ["  fix    Name a folder on another disk, or free some space."]
