"""The keys of a config: defaults, docstrings and bounds."""

from __future__ import annotations

import dataclasses

import pytest

from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from tests.configs.small import Write


def test_a_config_is_frozen(write: Write) -> None:
    config: Config = load(write()).config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
