"""The names of trackers in a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, reload
from drumbeat.configs.trackers import KNOWN, tracker_faults, trackers
from tests.configs.small import BASE


def test_names_and_targets() -> None:
    own = {"_target_": "my_lab.Board", "file": "x"}
    assert trackers(["mlflow", own, "mlflow", {"_target_": KNOWN["mlflow"]}]) == {
        "mlflow": {"_target_": KNOWN["mlflow"]}, "board": own, "mlflow-2": {"_target_": KNOWN["mlflow"]},
        "mlflow-3": {"_target_": KNOWN["mlflow"]}}
    assert trackers([]) == {}


def test_what_is_no_tracker() -> None:
    (fault, other) = tracker_faults(["wandb", "mlflwo", ["wandb"], {"_target_": "x.Y"}])
    assert (fault.what, fault.where) == ("there is no tracker mlflwo", "tracking.to[1]")
    assert fault.remedy.startswith("Did you mean 'mlflow'?\n")
    assert other.where == "tracking.to[2]"


def test_keys_are_refused_and_not_repeated() -> None:
    mlflow = {"_target_": KNOWN["mlflow"], "uri": "https://me:hush-hush@lab.org"}
    own = {"_target_": "x.Y", "api_key": "hush-hush", "more": {"header": "Bearer hush-hush"}, "file": "x"}
    faults = list(tracker_faults([mlflow, own]))
    assert [(fault.where, fault.what.partition(" of a tracker")[0]) for fault in faults] == [
        ("tracking.to[0]", "uri"), ("tracking.to[1]", "api_key"), ("tracking.to[1]", "more.header")]
    assert not [fault for fault in faults if "hush-hush" in str(fault)]
    assert not list(tracker_faults([{**mlflow, "uri": "${oc.env:URI}"}, {"_target_": "x.Y", "token": "${oc.env:T}"}]))


def test_it_is_checked_when_the_config_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(f"{BASE}tracking: {{to: [tensorboard]}}\n")
    with pytest.raises(ConfigError) as error:
        load(file)
    assert error.value.faults[0].what == "there is no tracker tensorboard"
    assert f"{file}:" in error.value.faults[0].where or "small.yaml:" in error.value.faults[0].where


def test_a_run_without_trackers_does_not_name_the_key(tmp_path: Path) -> None:
    """Its copy of the code may not know it."""
    file = tmp_path / "small.yaml"
    file.write_text(BASE)
    assert "to:" not in load(file).as_yaml()
    written = tmp_path / "config.yaml"
    written.write_text(load(file, ["tracking.to=[mlflow]"]).as_yaml())
    assert reload(written).config.tracking.to == ["mlflow"]
