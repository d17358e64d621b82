"""Trained models: which checkpoint is loaded, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file

import drumbeat
from drumbeat.configs.errors import RunError
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_task
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.inference.load import good_checkpoint, load_model, task_without_sets, training_set
from tests.trainers.saved_runs import Small

CPU = torch.device("cpu")


def test_a_checkpoint_is_named_by_step_last_or_best(images: RunDir) -> None:
    path = images.checkpoints / "step-00000003"
    found = {which: good_checkpoint(images, which) for which in (None, "best", "last", "3")}
    assert {name for _, name in found.values()} == {"best checkpoint, step 3", "last checkpoint, step 3", "step 3"}
    assert {path.resolve() for path, _ in found.values()} == {path.resolve()}
    assert found[None][1] == "best checkpoint, step 3"
    (images.checkpoints / "best").unlink()
    assert good_checkpoint(images, None)[1] == "last checkpoint, step 3"
    with pytest.raises(RunError, match="there is no checkpoint '4'"):
        good_checkpoint(images, "4")


def test_a_corrupted_checkpoint_is_refused(images: RunDir) -> None:
    file = images.checkpoints / "step-00000003" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError) as raised:
        good_checkpoint(images, "last")
    assert raised.value.faults[0].what == "the checkpoint is corrupted: the digest of model.safetensors differs"
    assert f"List the others: drumbeat checkpoints {images.id}\n" in raised.value.faults[0].remedy
    assert raised.value.faults[0].remedy.endswith(f"are trained again by: drumbeat resume {images.id}")


def test_the_model_has_the_saved_weights_and_is_in_evaluation_mode(images: RunDir) -> None:
    """Its number of classes comes from the checkpoint, not from the data."""
    path, _ = good_checkpoint(images, None)
    assert training_set(path)["classes"] == ["cat", "dog"]
    config = read(images.config)
    shutil.rmtree(config.data.train["root"])
    model = load_model(config, path, CPU, build_task(config, None))
    assert isinstance(model, Small)
    assert model.head.out_features == 2
    assert not any(module.training for module in model.modules())
    assert weights_sha256(model.state_dict()) == weights_sha256(load_file(path / "model.safetensors"))


def test_the_model_and_its_task_need_no_set(images: RunDir) -> None:
    """The names of the classes are in the checkpoint; the caller's generator stays as it is."""
    path, _ = good_checkpoint(images, None)
    config = read(images.config)
    gone = dataclasses.replace(config, data=dataclasses.replace(config.data, train={"_target_": "nowhere.at.All"}))
    assert task_without_sets(gone, path).output_names == ["cat", "dog"]
    before = torch.get_rng_state()
    model = drumbeat.Run(images).model("last")
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    expected = load_file(path / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items() if name in expected)
