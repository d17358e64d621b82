"""Inference on new images and texts: the same predictions as in an evaluation; unreadable inputs are left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.commands.evaluate import build_job, run_job
from drumbeat.trainers.inference.inputs import Item, read_images
from drumbeat.trainers.inference.predictor import Predictor
from drumbeat.trainers.world import join
from tests.trainers.saved_runs import IMAGES, draw_images, run_of


def test_the_same_as_the_evaluation(images: RunDir, tmp_path: Path) -> None:
    """Bit for bit in the same batches; one by one, up to the last digits."""
    job = build_job(images, "test", None)
    with join("cpu") as world:
        results = run_job(job, world)
    predictor = Predictor.from_run(images.path)
    items = read_images([tmp_path / "test"], predictor.task)
    assert [item.actual for item in items] == ["cat"] * 5 + ["dog"] * 6
    assert torch.equal(predictor.predict(items).outputs, results.outputs)
    probabilities = results.outputs.softmax(1)
    for number, item in enumerate(items[:3]):
        (prediction,) = predictor([item.value])
        assert prediction.values == pytest.approx(dict(zip(["cat", "dog"], probabilities[number].tolist(),
                                                           strict=True)), abs=1e-5)
        assert prediction.prediction == ["cat", "dog"][int(results.outputs[number].argmax())]


def test_views_are_averaged_as_in_the_evaluation(tmp_path: Path) -> None:
    draw_images(tmp_path)
    flip = "views: [{_target_: torchvision.transforms.v2.functional.horizontal_flip}]"
    run = run_of(tmp_path, IMAGES.replace("{batch_size: 4}", f"{{batch_size: 4, {flip}}}"))
    with join("cpu") as world:
        results = run_job(build_job(run, "test", None), world)
    predictor = Predictor.from_run(run.path)
    items = read_images([tmp_path / "test"], predictor.task)
    assert torch.equal(predictor.predict(items).outputs, results.outputs)
    inputs = predictor.forward.inputs(predictor.inputs(items[:4]))
    with torch.no_grad():
        both = predictor.model(inputs), predictor.model(inputs.flip(-1))
    assert torch.allclose(results.outputs[:4], (both[0] + both[1]) / 2, atol=1e-6)
    assert not torch.allclose(results.outputs[:4], both[0], atol=1e-3)


def test_arrays_images_tensors_and_files_are_the_same(images: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "test" / "dog" / "3.png"
    with Image.open(file) as opened:
        picture = opened.copy()
    array = np.asarray(picture)
    predictions = Predictor.from_run(images.path)([file, str(file), picture, picture.convert("RGB"), array,
                                                   np.stack([array] * 3, axis=2), torch.from_numpy(array.copy())[None]])
    assert all(one.values == pytest.approx(predictions[0].values, abs=1e-5) for one in predictions)
    assert Predictor.from_run(images.path)([]) == []
    with pytest.raises(ValueError, match="cannot read the image"):
        Predictor.from_run(images.path)([tmp_path / "saved.yaml"])


@pytest.mark.parametrize("batch", [True, False])
def test_batchnorm_uses_the_batch_or_the_running_statistics(tmp_path: Path, batch: bool) -> None:
    draw_images(tmp_path)
    run = run_of(tmp_path, IMAGES.replace("{batch_size: 4}", f"{{batch_size: 1, batch_statistics: {batch}}}"))
    predictor = Predictor.from_run(run.path)
    file = tmp_path / "test" / "dog" / "3.png"
    inputs = predictor.inputs([Item(str(file), file)])
    assert inputs is not None
    (prediction,) = predictor([file])
    expected = predictor.model.train(batch)(predictor.forward.inputs(inputs)).softmax(1)[0]
    assert list(prediction.values.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    other = predictor.model.train(not batch)(predictor.forward.inputs(inputs)).softmax(1)[0]
    assert list(prediction.values.values()) != pytest.approx(other.tolist(), abs=1e-3)


def test_without_the_training_data(images: RunDir, tmp_path: Path) -> None:
    """The run folder is enough: the checkpoint contains the names of the classes."""
    file = tmp_path / "test" / "cat" / "1.png"
    (before,) = Predictor.from_run(images.path)([file])
    shutil.rmtree(tmp_path / "train")
    assert Predictor.from_run(images.path)([file]) == [before]


def test_images_of_different_sizes_that_are_not_resized(tmp_path: Path) -> None:
    draw_images(tmp_path)
    run = run_of(tmp_path, IMAGES.replace("""    evaluate:
      - {_target_: torchvision.transforms.v2.Resize, size: 20}
      - {_target_: torchvision.transforms.v2.CenterCrop, size: 16}
""", "    evaluate: []\n"))
    predictor = Predictor.from_run(run.path)
    files = [tmp_path / "test" / "dog" / "1.png", tmp_path / "test" / "dog" / "3.png"]
    with pytest.raises(RunError) as raised:
        predictor(files)
    screen = " ".join(str(raised.value).split())
    assert screen.startswith("error: the model cannot take these inputs: the samples 0, 1 cannot be put into one batch")
    assert "Its data.transforms.evaluate is empty, so inputs are not resized here." in screen
