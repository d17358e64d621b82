"""The keys of a config: defaults, docstrings and bounds."""

from __future__ import annotations

import ast
import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest

from drumbeat.configs import initialize, operation, schema, site
from drumbeat.configs.fields import MISSING
from drumbeat.configs.load import load
from drumbeat.configs.operation import Launch
from drumbeat.configs.schema import Config
from tests.configs.small import Write


def test_a_config_is_frozen(write: Write) -> None:
    config: Config = load(write()).config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_bounds_are_where_the_loader_looks_for_them() -> None:
    """`configs/faults.py` reads them from the fields' metadata."""
    found = {(section.__name__, one.name): dict(one.metadata) for section in (Config, Launch)
             for one in dataclasses.fields(section)}
    assert found["Config", "name"] == {"plain_name": True}
    assert found["Config", "batch_size"] == {"at_least": 1}
    assert found["Launch", "gpus"] == {"at_least": 0}


def test_no_default_is_out_of_its_bounds() -> None:
    for section in (value for module in (schema, site) for value in vars(module).values()
                    if dataclasses.is_dataclass(value)):
        for one in dataclasses.fields(section):
            if one.default not in (None, MISSING, dataclasses.MISSING):
                assert one.default >= one.metadata.get("at_least", one.default), one.name
                assert "above" not in one.metadata or one.default > one.metadata["above"], one.name


def test_every_key_has_a_docstring() -> None:
    """The command help and the documentation print them. That of a section is the docstring of its class."""
    sections = {node.name: node.body for module in (schema, initialize, operation, site)
                for node in ast.parse(Path(str(module.__file__)).read_text()).body if isinstance(node, ast.ClassDef)}
    bare = [f"{name}.{ast.unparse(key.target)}" for name, body in sections.items()
            for key, after in pairwise([*body, ast.Pass()])
            if isinstance(key, ast.AnnAssign) and ast.unparse(key.annotation) not in sections
            and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))]
    assert bare == []
