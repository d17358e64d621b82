"""The sections that do not affect the result."""

from __future__ import annotations

from dataclasses import fields

from drumbeat.configs import operation
from drumbeat.configs.run.changes import rule_of
from drumbeat.configs.schema import Config


def test_all_of_their_keys_may_change_on_a_resume() -> None:
    sections = [one.name for one in fields(Config) if getattr(operation, str(one.type), None)]
    assert sections == ["checkpoints", "tracking", "notify", "watchdog", "launch", "reference"]
    keys = [f"{name}.{one.name}" for name in sections for one in fields(getattr(operation, name.capitalize()))]
    assert {rule_of(key).effect for key in keys} == {"none"}
