"""What trackers and notifications lack is known before a run is submitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drumbeat.configs.errors import Fault
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.operation import Notify, Tracking
from drumbeat.configs.schema import Config
from drumbeat.trainers.commands.beside_checks import beside_faults
from drumbeat.trainers.trackers.mlflow import MLflow
from tests.trainers.trackers.made import Listed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of services that Apprise imports


class Absent(Listed):
    package = "a_package_that_nobody_has"


@pytest.fixture
def config() -> Config:
    return build_config([Layer(values={"name": "x", "batch_size": 4, "model": {"_target_": "x"}}, origin="test")])


def faults(config: Config, *to: Any, **notify: Any) -> list[Fault]:
    return list(beside_faults(replace(config, tracking=Tracking(to=list(to)), notify=Notify(**notify))))


def test_all_is_there(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MY_ADDRESS", "json://localhost/")
    assert faults(config) == []
    assert faults(config, "mlflow", "wandb", "trackio", {"_target_": f"{MLflow.__module__}.MLflow", "experiment": "x"},
                  to=["MY_ADDRESS"]) == []


def test_a_package_is_missing(config: Config) -> None:
    (fault,) = faults(config, {"_target_": f"{__name__}.Absent", "file": "x"})
    assert fault.what == "the package a_package_that_nobody_has is not installed"
    assert fault.remedy == "pip install 'drumbeat[trackers]'\nOr without it: tracking.to=[]"


def test_a_key_is_missing(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    (fault,) = faults(config, "wandb")
    assert (fault.what, fault.given) == ("wandb has no API key for api.wandb.ai", "wandb")
    assert "WANDB_MODE=offline" in fault.remedy


def test_no_tracker(config: Config) -> None:
    (fault,) = faults(config, {"_target_": "collections.Counter"})
    assert fault.what == "a tracker is a subclass of drumbeat.trainers.trackers.Tracker"
    (fault,) = faults(config, {"_target_": "drumbeat.trainers.trackers.MLFlow"})
    assert "has no 'MLFlow'" in fault.what
    (fault,) = faults(config, {"_target_": "drumbeat.trainers.trackers.MLflow", "url": "x"})
    assert "url" in fault.what + fault.given


def test_addresses(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_ADDRESS", raising=False)
    (fault,) = faults(config, to=["MY_ADDRESS"])
    assert fault.what == "the environment variable MY_ADDRESS is not set"
    monkeypatch.setenv("MY_ADDRESS", "nothing://hush-hush")
    (fault,) = faults(config, to=["MY_ADDRESS"])
    assert fault.what == "what MY_ADDRESS holds is not an address for Apprise"
    assert "hush" not in str(fault)
