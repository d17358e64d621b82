"""The metadata that a field of a section has."""

from __future__ import annotations

from dataclasses import dataclass, fields

from drumbeat.configs.fields import MISSING, above, at_least, path, plain_name


@dataclass(frozen=True, kw_only=True)
class Section:
    count: int = at_least(1)
    rate: float | None = above(0, None)
    folder: str | None = path(None)
    name: str = plain_name()


def test_a_field_has_its_bound_and_its_default() -> None:
    assert {field.name: (dict(field.metadata), field.default) for field in fields(Section)} == {
        "count": ({"at_least": 1}, MISSING), "rate": ({"above": 0}, None), "folder": ({"path": True}, None),
        "name": ({"plain_name": True}, MISSING)}
