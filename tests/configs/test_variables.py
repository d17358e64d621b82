"""Which references to environment variables are recorded when a run is submitted, and that nothing else resolves any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, plain, read, reload
from drumbeat.configs.variables import UnsetVariableError, digest, late, unresolved, value, variables
from tests.configs.small import Write, faults

VARIABLES = {"BS": "32", "LR": "0.1", "MODE": "fast", "PICTURES": "/pictures", "WEIGHTS": "w.pth", "PACKAGE": "nets",
             "WANDB_API_KEY": "abc", "PIN_TOKEN": "17"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in VARIABLES.items():
        monkeypatch.setenv(name, text)


@pytest.mark.parametrize(("written", "kept"), [
    ("batch_size=${oc.env:BS,8}", 32), ("batch_size=${oc.env:NOPE,8}", 8),
    ("data.cache=${oc.env:PICTURES}", "/pictures"),
    ("model.lr=${oc.decode:${oc.env:LR}}", 0.1), ("model.root=${oc.env:PICTURES}/a", "/pictures/a"),
    ("model.folder=${oc.env:MODE}", "CWD/fast"), ("model.weights=${oc.env:WEIGHTS}", "CWD/w.pth"),
    ("model._target_=${oc.env:PACKAGE}.Net", "nets.Net"), ("model.n=${oc.dict.keys:phases}", ["head", "finetune"]),
    ("model.mode=${oc.env:MODE}", "${oc.env:MODE}"), ("model.mode=${oc.env:NOPE,slow}", "${oc.env:NOPE,slow}"),
    ("model.mode=${name}-${oc.env:MODE}", "small-${oc.env:MODE}"),
    ("model.mode=${oc.decode:${oc.env:MODE}}", "${oc.decode:${oc.env:MODE}}"),
    ("model.key=${oc.env:WANDB_API_KEY}", "${oc.env:WANDB_API_KEY}"),
    ("model.root=/a/${oc.env:WANDB_API_KEY}", "/a/${oc.env:WANDB_API_KEY}"),
    ("model.pin=${oc.decode:${oc.env:PIN_TOKEN}}", "${oc.decode:${oc.env:PIN_TOKEN}}"),
    ("model.api_key=${oc.decode:${oc.env:LR}}", "${oc.decode:${oc.env:LR}}"),
    ("model.list=[1, {x: '${oc.env:MODE}', file: '${oc.env:WEIGHTS}'}]",
     [1, {"x": "${oc.env:MODE}", "file": "CWD/w.pth"}]),
    (r"model.text=\${oc.env:MODE}", "${oc.env:MODE}"), ("model.text=$MODE ${name}", "$MODE small"),
])
def test_what_is_recorded(write: Write, tmp_path: Path, written: str, kept: Any) -> None:
    """And that the recorded config, and what resumes from it, is the same in a shell with other variables."""
    def absolute(node: Any) -> Any:
        return node.replace("CWD", str(tmp_path)) if isinstance(node, str) else [
            {name: absolute(inner) for name, inner in one.items()} if isinstance(one, dict) else one for one in node
        ] if isinstance(node, list) else node

    loaded = load(write(), [written])
    key = written.partition("=")[0]
    found: Any = plain(loaded.config)
    for part in key.split("."):
        found = found[part]
    assert found == absolute(kept)
    (tmp_path / "run.yaml").write_text(loaded.as_yaml())
    assert "abc" not in (tmp_path / "run.yaml").read_text()
    assert read(tmp_path / "run.yaml") == loaded.config
    assert reload(tmp_path / "run.yaml").config == loaded.config


def test_a_recorded_number_is_that_of_the_start(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.yaml").write_text(load(write(), ["batch_size=${oc.env:BS,8}"]).as_yaml())
    monkeypatch.setenv("BS", "64")
    assert reload(tmp_path / "run.yaml").config.batch_size == 32


@pytest.mark.parametrize("written", ["data.download_hint=${oc.env:WANDB_API_KEY}",
                                     "data.root=/x/${oc.env:WANDB_API_KEY}"])
def test_a_secret_is_not_recorded(write: Write, written: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(), [written])
    (fault,) = faults(error)
    assert fault.what == f"{written.partition('=')[0]} would be recorded with a value that is probably secret"
    assert "abc" not in str(error.value)


def test_a_variable_that_is_not_set_has_a_line(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load(write("model: {_target_: a.B,\n  key: '${oc.env:NOPE}'}\n"))
    (fault,) = faults(error)
    assert (fault.where, fault.given) == ("config.yaml:3", "${oc.env:NOPE}")


@pytest.mark.parametrize("text", [
    "${oc.env:MODE}", "a ${oc.env:MODE} b", "${oc.decode:${oc.env:MODE}}", "${${name}.env:MODE}", "${oc.coerce:os.x,1}",
    "${oc.create:'${oc.env:MODE}'}", r"\\${oc.env:MODE}", "${oc.env:'MODE'}", "${oc.env:MODE,'}'}", "${oc.select:x,1}"])
def test_reading_a_run_calls_no_resolver(write: Write, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(load(write()).as_yaml().replace("width: 8", f"width: {text!r}"))
    assert read(tmp_path / "run.yaml").model["width"] == text.encode().decode() if "\\" not in text else True
    assert "fast" not in str(read(tmp_path / "run.yaml"))


def test_a_number_that_is_a_reference_in_the_config_of_a_run_is_refused(write: Write, tmp_path: Path) -> None:
    """No run's config holds one, because it was recorded."""
    (tmp_path / "run.yaml").write_text(load(write()).as_yaml().replace("batch_size: 12", "batch_size: '${oc.env:BS}'"))
    with pytest.raises(ConfigError, match="batch_size"):
        read(tmp_path / "run.yaml")


def test_references_to_other_keys_are_left() -> None:
    node = {"a": ["${b.c}", {"d": "${.e}/${oc.env:X}"}], "f": "${", "g": 1}
    assert unresolved(node) == {"a": ["${b.c}", {"d": r"${.e}/\${oc.env:X}"}], "f": "${", "g": 1}
    assert dict(late({"a": ["${b.c}", {"d": "x/${oc.env:X}"}]})) == {"a[1].d": "x/${oc.env:X}"}


def test_the_value_of_a_reference() -> None:
    assert variables("${oc.env:A,${oc.env:B}} ${oc.env: 'C' }") == ["A", "B", "C"]
    assert value("${oc.env:MODE}/${oc.decode:${oc.env:LR}}") == "fast/0.1"
    with pytest.raises(UnsetVariableError, match=r"^Environment variable 'NOPE' not found$"):
        value("${oc.env:NOPE}")


def test_a_digest_tells_values_apart_and_is_of_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest("model.mode", "${oc.env:MODE}", "run")
    assert len(before) == 8
    assert before != digest("model.mode", "${oc.env:MODE}", "another run")
    monkeypatch.setenv("MODE", "slow")
    assert before != digest("model.mode", "${oc.env:MODE}", "run")
    assert digest("model.x", "${oc.env:WANDB_API_KEY}", "run") == digest("model.token", "${oc.env:MODE}", "run") == ""
