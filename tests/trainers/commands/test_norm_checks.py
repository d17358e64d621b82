"""Whether BatchNorm can be trained as the config asks is known before the run is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import build_model
from drumbeat.trainers.commands.norm_checks import check_norms, norm_notes
from drumbeat.trainers.commands.preflight import preflight
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
        check_norms(made, "head", model, set(), ranks, "cpu")
        return
    with pytest.raises(PreflightError, match="BatchNorm1d cannot be trained on one sample at a time"):
        check_norms(made, "head", model, set(), ranks, "cpu")
    check_norms(made, "head", model, {*model.modules()}, ranks, "cpu")


SYNC = "sync_batchnorm=true"


@pytest.mark.parametrize(("changes", "ranks", "device", "reason"), [
    ([], 2, "cpu", "torch's SyncBatchNorm works on GPUs alone"),
    (["micro_batch_size=auto"], 2, "cuda", "a rank that is out of memory would leave the others waiting"),
    (["batch_size=13", "micro_batch_size=6"], 2, "cuda", "the ranks have 1 or 2 micro-batches in a step"),
    (["evaluation.batch_statistics=true"], 2, "cuda", "ranks evaluate different numbers of batches"),
])
def test_statistics_of_all_ranks_are_refused(tmp_path: Path, changes: list[str], ranks: int, device: str,
                                             reason: str) -> None:
    made = config(tmp_path, SYNC, *changes)
    with pytest.raises(PreflightError) as error:
        check_norms(made, "head", build_model(made), set(), ranks, device)
    assert reason in " ".join(str(error.value).split())
    check_norms(made, "head", build_model(made), set(), 1, device)
    check_norms(config(tmp_path, *changes), "head", build_model(made), set(), ranks, device)


def test_one_sample_of_each_rank_is_enough_together(tmp_path: Path) -> None:
    made = config(tmp_path, SYNC, "micro_batch_size=1")
    check_norms(made, "head", build_model(made), set(), 2, "cuda")


def test_ranks_on_the_cpu_are_refused_before_submission(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="sync_batchnorm: true, 2 ranks on the CPU"):
        preflight(config(tmp_path, SYNC), world_size=2)
    assert preflight(config(tmp_path, SYNC))["notes"] == []


def test_statistics_that_depend_on_the_memory_are_noted(tmp_path: Path) -> None:
    made = config(tmp_path, "micro_batch_size=auto")
    assert norm_notes(made, build_model(made)) == [
        "BatchNorm computes its statistics over a micro-batch, so with micro_batch_size: auto the result depends "
        "on the memory of the devices"]
    linear = config(tmp_path, "micro_batch_size=auto", "model._target_=tests.tiny.Linear")
    assert norm_notes(linear, build_model(linear)) == []
    shared = config(tmp_path, SYNC, "model._target_=tests.tiny.Linear")
    assert norm_notes(shared, build_model(shared)) == [
        "sync_batchnorm changes nothing, because the model has no BatchNorm"]
    plain = config(tmp_path)
    assert norm_notes(plain, build_model(plain)) == []
