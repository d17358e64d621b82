"""Any text as a config, a profile or a KEY=VALUE: a value or a `ConfigError`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load, load_site
from drumbeat.configs.yaml_text import dump, parse
from tests.fuzz.inputs import JSON, damaged, texts_of

pytestmark = pytest.mark.fuzz

SHIPPED = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
SITES = [path.read_bytes() for path in sorted((ROOT / "configs" / "clusters").glob("*.yaml"))]
YAML = texts_of(
    "\n", "  ", ": ", "- ", "&a ", "*a", "<<: ", "[", "]", "{", "}", ", ", "'", '"', "|", ">", "#", "!!int ", "!!map ",
    "!!float ", "!!python/none ", "? ", "name", "batch_size", "model", "_target_", "phases", "data", "${", "${model}",
    "${.x}", "${oc.env:HOME}", "1e9", "0x_", "1:2:3", "???", "null", "base", "---", "%")
HEAD = b"name: x\nbatch_size: 1\nphases: {head: {epochs: 1, optimizer: {_target_: a.B}}}\nmodel:\n  _target_: a.B\n"


def loads(file: Path, content: bytes, *assignments: str) -> None:
    file.write_bytes(content)
    with suppress(ConfigError):
        load(file, assignments).as_yaml()


@given(damaged(SHIPPED))
def test_a_damaged_config(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    loads(tmp_path_factory.getbasetemp() / "c.yaml", content)


@given(YAML)
def test_tokens_as_a_config(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    loads(tmp_path_factory.getbasetemp() / "c.yaml", content)
    loads(tmp_path_factory.getbasetemp() / "c.yaml", HEAD + b"  a: " + content.replace(b"\n", b"\n    "))


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4))
def test_any_value_as_an_argument(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    loads(tmp_path_factory.getbasetemp() / "c.yaml", HEAD + b"  arguments: " + dump({"x": values}).encode(
        "utf-8", "surrogatepass").replace(b"\n", b"\n    "))


@given(damaged(SITES))
def test_a_damaged_profile(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "site.yaml"
    file.write_bytes(content)
    with suppress(ConfigError):
        load_site(str(file))


@given(texts_of("name", "model", "phases", ".", "=", "[", "]", "{", "}", "a", "_target_", "${", ":", " ", "1"))
def test_tokens_as_a_value_on_the_command_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    loads(tmp_path_factory.getbasetemp() / "c.yaml", HEAD, text)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
@example({"\x85": "\u2028\ufeff"})
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    """Except for texts that YAML cannot hold, which are an error of YAML."""
    with suppress(yaml.YAMLError, UnicodeEncodeError):
        assert repr(parse(dump({"x": values}))[0]) == repr({"x": values})
