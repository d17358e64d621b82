"""From the config's sections to objects."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.build import build_sets, use_caches
from tests.tiny import write_config


def test_a_cache_folder_with_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named `$TMPDIR` would be made in the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMPDIR", raising=False)
    config = load(write_config(tmp_path), ["data.cache=$TMPDIR/cache"]).config
    with pytest.raises(PreflightError, match=f"the variable TMPDIR is not set on {socket.gethostname()}"):
        use_caches(config, build_sets(config), processes=0)
    assert not list(tmp_path.glob("$*"))
