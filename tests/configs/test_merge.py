"""Layers of values become one object: sources, paths, references, and all faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, reload
from tests.configs.small import BASE, Write, faults


def test_where_a_key_comes_from(write: Write) -> None:
    loaded = load(write("data:\n  train: {root: elsewhere}\n"), ["phases.head.epochs=1"])
    assert loaded.where("data.train") == "config.yaml:3"  # the topmost layer that says something in the section
    assert loaded.where("data.train._target_") == "base.yaml:5"
    assert loaded.where("data.transforms.train[0].size") == "base.yaml:9"
    assert loaded.where("phases.head") == "command line"
    assert loaded.where("evaluation.batch_size") == ""
    assert loaded.where("nonsense") == ""


def test_paths_of_targets_are_taken_from_the_current_folder(write: Write, tmp_path: Path) -> None:
    arguments = "weights: w.pth, index_file: i.txt, root: ~/x, url_path: 's3://b/c', size: 3, deep: {folder: d}"
    config = load(write(f"model: {{_target_: a.B, {arguments}}}\n")).config
    assert config.data.train["root"] == str(tmp_path / "pictures" / "train")
    assert config.model == {"_target_": "a.B", "weights": str(tmp_path / "w.pth"),
                            "index_file": str(tmp_path / "i.txt"), "root": str(Path.home() / "x"),
                            "url_path": "s3://b/c", "size": 3, "deep": {"folder": str(tmp_path / "d")}}
    assert load(write(), ["model.weights=IMAGENET1K_V1"]).config.model["weights"] == "IMAGENET1K_V1"


def test_references(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/pictures")
    config = load(write(), ["seed=${batch_size}", "data.train.root=${oc.env:PICTURES}/train"]).config
    assert (config.seed, config.data.train["root"]) == (12, "/pictures/train")


def test_a_reference_stays_one_in_what_a_run_keeps(write: Write, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/pictures")
    changes = ["data.root=sets", "data.train.root=${data.root}/train", "data.test={_target_: a.B, root: '${name}'}",
               "model.first=${oc.env:PICTURES}/${name}", "seed=${batch_size}"]
    (tmp_path / "run.yaml").write_text(load(write(), changes).as_yaml())
    text = (tmp_path / "run.yaml").read_text()
    assert 'root: "${data.root}/train"' in text
    assert f"root: {tmp_path}/small" in text  # a relative path counts from this folder, whoever reads it
    assert 'first: "${oc.env:PICTURES}/small"' in text  # a text that is no path stays a reference
    again = load(tmp_path / "run.yaml", ["data.root=/elsewhere", "batch_size=8"]).config
    assert (again.data.train["root"], again.seed) == ("/elsewhere/train", 8)
    assert load(write(), ["model={_target_: a.B, rates: {layer.1: '${seed}'}}"]).as_yaml(), "a name with a dot in it"
    resumed = reload(tmp_path / "run.yaml", ["data.workers=1"])
    assert 'root: "${data.root}/train"' in resumed.as_yaml()


def test_all_faults_at_once_in_the_order_of_the_sources(write: Write) -> None:
    base = BASE.replace("batch_size: 12", "batchsize: 12")
    file = write("data: {workers: -1}\nphases:\n  head:\n    epoch: 3\n", base)
    with pytest.raises(ConfigError) as error:
        load(file, ["seed=x"])
    assert [(fault.what, fault.where) for fault in faults(error)] == [
        ("unknown key 'batchsize' at the top level", "base.yaml:2"),
        ("'batch_size' is missing", "config.yaml"),
        ("data.workers must be at least 0", "config.yaml:2"),
        ("unknown key 'epoch' in 'phases.head'", "config.yaml:5"),
        ("seed must be a whole number", "command line"),
    ]


@pytest.mark.usefixtures("no_home")
def test_paths_of_a_user_without_a_home(write: Write) -> None:
    assert load(write("data:\n  train: {root: elsewhere}\n")).config.name
    with pytest.raises(ConfigError, match="the home folder of a path is unknown"):
        load(write("data:\n  train: {root: ~/x}\n"))
