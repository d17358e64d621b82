"""What `notify` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load
from drumbeat.configs.notifications import notify_faults
from drumbeat.configs.operation import Notify
from tests.configs.small import BASE


def test_an_address_is_refused_and_not_repeated() -> None:
    (fault,) = notify_faults(Notify(to=["GOOD_NAME", "slack://hush/hush"]))
    assert fault.where == "notify.to[1]"
    assert "hush" not in str(fault)
    assert "notify.to=[MY_ADDRESS]" in fault.remedy


def test_the_command_holds_no_secret() -> None:
    assert [*notify_faults(Notify(command="mail -s \"$DRUMBEAT_TITLE\" me"))] == []
    (fault,) = notify_faults(Notify(command="curl -H 'Authorization: Bearer hush' https://host"))
    assert (fault.where, fault.given) == ("notify.command", "")


def test_events_have_names(tmp_path: Path) -> None:
    assert [*notify_faults(Notify(on=["failed", "waiting"]))] == []
    file = tmp_path / "small.yaml"
    file.write_text(f"{BASE}notify: {{on: [fail]}}\n")
    with pytest.raises(ConfigError) as error:
        load(file)
    (fault,) = error.value.faults
    assert (fault.what, fault.remedy) == ("there is no event 'fail'", "Did you mean 'failed'?")
    assert "notify" not in load(_small(tmp_path)).as_yaml()


def _small(folder: Path) -> Path:
    file = folder / "plain.yaml"
    file.write_text(BASE)
    return file
