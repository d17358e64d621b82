"""Every shipped workload is planned and trains through the same loop, on small data in files of its own format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.load import ROOT, load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status
from drumbeat.data.vocabulary import Vocabulary
from drumbeat.trainers.build import build_sets, place_model
from drumbeat.trainers.commands.evaluate import build_job, run_job
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.inference.predictor import Predictor
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.report.range_test import range_test
from drumbeat.trainers.world import join
from tests.tiny import drumbeat, latest
from tests.workloads import SMALL, train, write_sets

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation.*")]

METRICS = {"fill_level": {"loss", "mae", "rmse", "r2"}, "news": {"loss", "accuracy", "hamming", "f1"},
           "shapes": {"loss", "accuracy", "mean_iou", "dice"}}
"""The metrics of tasks other than classification, by a part of the config's name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in, with data where the configs look for it."""
    here = tmp_path_factory.mktemp("workloads")
    write_sets(here)
    return here


@pytest.mark.parametrize("name", SMALL)
def test_a_workload_trains(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    facts, result = train(name, SMALL[name], folder)
    assert result.steps == facts["steps"]["train"] > 0
    kind = next((metrics for part, metrics in METRICS.items() if part in name), {"loss", "accuracy"})
    assert set(result.best) == (set() if "lr_finder" in name else {"step", "phase", *kind})
    assert bool(result.test) == ("cifar10" in name or "news" in name)


def test_the_report_of_the_learning_rate_finder_has_its_chart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    train("lr_finder_fashion_mnist", ["phases.train.epochs=5", "name=finder"], folder)
    (events,) = (folder / "runs" / "finder").glob("*/tensorboard")
    found = read_events(events)
    assert found.curves["train/lr"][-1][1] == pytest.approx(10 / 1e7 ** (1 / 24), rel=1e-3)
    (figure,) = range_test(found)
    assert figure.title == "loss over learning rate"


def test_the_training_curve_can_be_a_running_mean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    curves = []
    for steps in (1, 3):
        run = f"name=mean{steps}"
        train("mlp_fashion_mnist", [*SMALL["mlp_fashion_mnist"], run, f"tracking.loss_smoothing_steps={steps}"], folder)
        (events,) = (folder / "runs" / f"mean{steps}").glob("*/tensorboard")
        curves.append([point.value for point in EventAccumulator(str(events)).Reload().Scalars("train/loss")])
    plain, mean = curves
    assert len(plain) == 10
    assert mean == pytest.approx([sum(plain[max(0, k - 2):k + 1]) / len(plain[max(0, k - 2):k + 1]) for k in range(10)])


def test_a_text_model_starts_from_vectors(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """As the header of lstm_news says; how many of the words have a vector is printed."""
    monkeypatch.chdir(folder)
    vocabulary = Vocabulary(file="datasets/news/train.csv", text="content")
    known = vocabulary.words()[2::2]
    lines = [" ".join([word, *(f"{0.01 * k:.2f}" for k in range(100))]) for word in known]
    (folder / "vectors.txt").write_text("\n".join(lines))
    wanted = "{_target_: drumbeat.data.Vocabulary, file: datasets/news/train.csv, text: content}"
    config = load(ROOT / "configs" / "lstm_news.yaml",
                  [f"model.vectors={{_target_: drumbeat.data.glove, file: vectors.txt, vocabulary: {wanted}}}"]).config
    model = place_model(with_facts(config, facts_of(build_sets(config).train)), torch.device("cpu"))
    vector = model.get_parameter("embedding.weight")[vocabulary.words().index(known[0])]
    torch.testing.assert_close(vector, torch.arange(100) * 0.01)
    assert f"vectors.txt has {len(known):,} of {vocabulary.size - 2:,} words (50%)" in capsys.readouterr().err


def test_a_fill_level_is_predicted_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same value as in the evaluation, computed from the statistics of that picture alone."""
    monkeypatch.chdir(folder)
    train("resnet18_fill_level", ["name=level", "data.train.n=2", "data.validation.n=2", "data.train.image_size=64",
                                  "data.validation.image_size=64"], folder)
    run = RunDir(next((folder / "runs" / "level").glob("2*")))
    job = build_job(run, "validation", None)
    with join("cpu") as world:
        evaluated = run_job(job, world)
    job.samples[1][0].save(folder / "vessel.png")
    (prediction,) = Predictor.from_run(run.path)([folder / "vessel.png"])
    assert list(prediction.values.values()) == [pytest.approx(float(evaluated.outputs[1]), abs=1e-3)]


def test_all_shipped_configs_are_tried() -> None:
    shipped = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert shipped - set(SMALL) == {"resnet50_xray", "resnet50_xray_demo"}


def test_a_text_model_on_two_ranks(folder: Path) -> None:
    drumbeat(folder, str(ROOT / "configs" / "bilstm_news.yaml"), "--procs", "2", *SMALL["bilstm_news"])
    assert Status.require(latest(folder, "bilstm_news").status).state == "finished"
