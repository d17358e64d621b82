"""Whether BatchNorm can be trained as the config asks is known before the run is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import build_model
from drumbeat.trainers.commands.norm_checks import check_norms, norm_notes
from tests.tiny import write_config


def config(folder: Path, *changes: str) -> Config:
    return load(write_config(folder), changes).config


@pytest.mark.parametrize(("changes", "ranks", "refused"), [
    (["micro_batch_size=1"], 1, True), (["micro_batch_size=null"], 12, True), (["micro_batch_size=auto"], 12, True),
    (["micro_batch_size=null"], 6, False), (["micro_batch_size=auto"], 6, False)])
def test_batch_norm_needs_two_samples(tmp_path: Path, changes: list[str], ranks: int, refused: bool) -> None:
    made = config(tmp_path, *changes)
    model = build_model(made)
    if not refused:
        check_norms(made, "head", model, set(), ranks)
        return
    with pytest.raises(PreflightError, match="BatchNorm1d cannot be trained on one sample at a time"):
        check_norms(made, "head", model, set(), ranks)
    check_norms(made, "head", model, {*model.modules()}, ranks)


def test_statistics_that_depend_on_the_memory_are_noted(tmp_path: Path) -> None:
    made = config(tmp_path, "micro_batch_size=auto")
    assert norm_notes(made, build_model(made)) == [
        "BatchNorm computes its statistics over a micro-batch, so with micro_batch_size: auto the result depends "
        "on the memory of the devices"]
    linear = config(tmp_path, "micro_batch_size=auto", "model._target_=tests.tiny.Linear")
    assert norm_notes(linear, build_model(linear)) == []
    plain = config(tmp_path)
    assert norm_notes(plain, build_model(plain)) == []
