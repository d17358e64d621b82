"""Checks of data and models that need only the config. tests/launch/runs/test_programs.py tests them through commands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import check_data, needs_data, with_hint, wrong_with
from drumbeat.configs.schema import Config


def config(data: dict[str, Any]) -> Config:
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 1, "model": {"_target_": "x"}, "data": data,
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}})])


@pytest.mark.parametrize(("model", "needs"), [
    ({"_target_": "x", "classes": 2}, False),
    ({"_target_": "x", "classes": "from_data"}, True),
    ({"_target_": "x", "parts": [{"_target_": "y", "width": "from_data"}]}, True),
])
def test_which_models_are_sized_by_their_data(model: dict[str, Any], needs: bool) -> None:
    assert needs_data(model) is needs


def test_each_missing_path_is_reported_once(tmp_path: Path) -> None:
    """In the set or in a part of it, with the key where it stands first; a file that is there is fine."""
    (tmp_path / "there.csv").write_text("text\n")
    texts = {"_target_": "drumbeat.data.Texts", "file": str(tmp_path / "there.csv"),
             "vocabulary": {"_target_": "drumbeat.data.Vocabulary", "file": str(tmp_path / "lost.csv")}}
    with pytest.raises(PreflightError) as caught:
        check_data(config({"train": {"_target_": "drumbeat.data.Split", "of": texts}, "test": texts,
                           "download_hint": "Look under the sofa."}))
    (fault,) = caught.value.faults
    assert (fault.where, fault.given) == ("data.train.of.vocabulary.file", str(tmp_path / "lost.csv"))
    assert fault.remedy == "Look under the sofa."
    check_data(config({"train": texts | {"vocabulary": {"_target_": "theirs.Vocabulary", "file": "lost.csv"}}}))


def test_the_download_hint_is_added_once_to_the_last_fault_without_a_remedy() -> None:
    faults = [Fault(what="a", where="data.train.of"), Fault(what="b", where="data.test.root"),
              Fault(what="c", where="data.validation", remedy="other"), Fault(what="d", where="model.classes")]
    assert [fault.remedy for fault in with_hint(faults, "here")] == ["", "here", "other", ""]


def test_a_path_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert [wrong_with(path).replace(str(tmp_path), "") for path in (
        tmp_path, tmp_path / "file", tmp_path / "file" / "below", tmp_path / "empty", loop, Path("nul\0"))] == [
        "", "", "/file/below does not exist", "the folder /empty is empty",
        "/loop cannot be read: Too many levels of symbolic links", "nul\0 does not exist"]


def test_a_large_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail("listed"))
    assert wrong_with(tmp_path) == ""
