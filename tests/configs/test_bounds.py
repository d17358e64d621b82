"""Configs that expand to more than they are: aliases and references that multiply, deep nesting, other types."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.bounds import DEEPEST, MOST_VALUES
from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load
from drumbeat.configs.merge import MOST_MISFITS

HEAD = "name: x\nbatch_size: 1\nphases: {head: {epochs: 1, optimizer: {_target_: a.B}}}\nmodel:\n  _target_: a.B\n"
ALIASES = "  a0: &a0 [x]\n" + "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
"""Nine lines that stand for 48 million values."""


def references(levels: int, times: int, value: str = "'{}'") -> str:
    """Keys of the model, each of which refers to the one before several times."""
    return "  r0: x\n" + "".join(f"  r{n}: " + value.format(f"${{model.r{n - 1}}}" * times) + "\n"
                                 for n in range(1, levels + 1))


SECTIONS = "  s0: {x: 1}\n" + "".join(
    f"  s{n}: {{x: '${{model.s{n - 1}}}', y: '${{..s{n - 1}}}'}}\n" for n in range(1, 30))


def write(folder: Path, model: str) -> Path:
    file = folder / "c.yaml"
    file.write_text(HEAD + model)
    return file


@pytest.mark.parametrize(("model", "message", "line"), [
    (ALIASES, f"with all aliases written out, there are more than {MOST_VALUES:,} values", 11),
    ("  a: &a [*a]\n", "an alias contains itself", 6), ("  a: &a {b: *a}\n", "an alias contains itself", 6),
    (f"  a: {'[' * (DEEPEST + 1)}{']' * (DEEPEST + 1)}\n", f"more than {DEEPEST} sections and lists", 6),
    (f"  a: {'[' * 100_000}\n", "exceeded maximum nesting depth", 6),
    ("  a: !!python/object/apply:os.system [id]\n", "no values of the type tag:yaml.org,2002:python/object/app", 6),
    ("  a: !!binary aGk=\n", "no values of the type", 6), ("  a: !!set {a, b}\n", "no values of the type", 6),
    ("  a: !!timestamp 9999-99-99\n", "no values of the type", 6), ("  a: !!map [1]\n", "no values of the type", 6),
    ("  a: !!float x\n", "could not convert string to float", 6), ("  a: !!int ''\n", "string index out of range", 6),
    (f"  a: 1{'0' * 5000}\n", "4300 digits", 6),
    (references(30, 2), "with all references written out, there are more than", 26),
    (references(30, 2, '"{}${{oc.env:HOME}}"'), "with all references written out, there are more than", 26),
    (references(DEEPEST + 1, 1), f"more than {DEEPEST} references lead from one to the next", 6),
    (references(3000, 1), f"more than {DEEPEST} references lead from one to the next", 46),
    (SECTIONS, "with all references written out, there are more than", 18),
    (f"  a: {'${a.' * 300}{'}' * 300}\n", "with all references written out, there are more than", 6),
    ("  a: '${model.b}${model.b}'\n  b: '${model.a}'\n", "Recursive interpolation", 6),
    ("  a: '${model}'\n", "Interpolation to parent", 6),
], ids=lambda value: value[:30].strip() if isinstance(value, str) else str(value))
def test_what_expands_to_too_much_is_an_error_with_its_line(model: str, message: str, line: int, tmp_path: Path
                                                            ) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, model))
    (fault, *_) = error.value.faults
    assert message in fault.what.replace("\n", " ")
    assert fault.where.rpartition("/")[2].startswith("c.yaml:")
    assert fault.where.endswith(f":{line}") or "references" in message


def test_usual_aliases_and_references_are_read(tmp_path: Path) -> None:
    model = ("  size: &size [224, 224]\n  again: [*size, *size]\n  base: &base {a: 1}\n  more: {<<: *base, b: 2}\n"
             "  kind: more\n  found: ${model.${model.kind}}\n  beside: ${.size[0]}\n" + references(20, 1))
    arguments = load(write(tmp_path, model)).config.model
    assert arguments["again"] == [[224, 224], [224, 224]]
    assert arguments["found"] == arguments["more"] == {"a": 1, "b": 2}
    assert (arguments["beside"], arguments["r20"]) == (224, "x")


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    with open(file, "ab") as opened:
        opened.truncate(2**40)
    with pytest.raises(ConfigError, match="it is too large"):
        load(file)


def test_of_a_thousand_faults_some_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, "".join(f"key{number}: 1\n" for number in range(1000))))
    assert len(error.value.faults) == MOST_MISFITS
    assert {fault.what.partition("'")[0] for fault in error.value.faults} == {"unknown key "}


def test_a_long_value_does_not_fill_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, "seed: " + "x " * 1_000_000))
    assert len(str(error.value)) < 5000


@pytest.mark.parametrize(("text", "message"), [
    ("model.a=" + "[" * 50 + "]" * 50, "more than"), ("model.a={a: &a [*a]}", "contains itself"),
    ("model." + "a." * 30_000 + "a=1", "expected KEY=VALUE"), ("model.a=caf\udce9", "must be UTF-8"),
    ("model.a=!!python/none", "no values of the type"), ("model.a=!!int x", "invalid literal"),
], ids=lambda text: text[:20].encode("ascii", "replace").decode())
def test_the_same_for_values_on_the_command_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, ""), [text])
