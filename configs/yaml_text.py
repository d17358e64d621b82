"""Reads YAML with the line of each key, and writes YAML with comments.

OmegaConf's reader does not return line numbers, which errors and --dry-run show; so this reader builds on PyYAML and
gives the same values as OmegaConf. The writer exists because PyYAML writes no comments; ruamel.yaml only keeps the
comments of a file, and these are computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from drumbeat.configs.bounds import check_node

WIDTH = 80
COMMENT_COLUMN = 40


TEXT = "tag:yaml.org,2002:str"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as OmegaConf reads it: 1e-6 is a number, 2026-01-31 is text, and duplicate keys are errors. A key named on,
    off, yes or no is text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError) as error:  # as for !!int x, or a number of 5,000 digits
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key.value}'", key.start_mark)
            seen.add(str(key.value))
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = TEXT
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:float",
                             re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
                             list("-+.0123456789"))


class Parsed(NamedTuple):
    """The content of a YAML text."""

    value: Any
    lines: dict[str, int]
    """The line of each key: {"data.train.root": 23, "data.transforms.train[0]": 27}."""
    texts: dict[str, str]
    """The text of each value without quotes that YAML does not read as text, by key: {"account": "0123"}. The key is ''
    if it is the only value."""


def parse(text: str) -> Parsed:
    """The content of a YAML text. Raises `yaml.YAMLError`, also for a text that `bounds.py` rejects."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Parsed(None, {}, {})
        check_node(node)
        value = loader.construct_document(node)
        nodes = dict(_nodes(node))
        return Parsed(value, {key: line for key, (line, _) in nodes.items() if key},
                      {key: str(one.value) for key, (_, one) in nodes.items()
                       if isinstance(one, yaml.ScalarNode) and one.tag != TEXT})
    finally:
        loader.dispose()


def dump(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """YAML for `parse`, with one value per line. `comments`, by key, are put after their lines, or above a line that
    would become wider than a terminal."""
    lines = [_commented(text, (comments or {}).get(key, "")) for text, key in _block(values, "")]
    return "\n".join([*lines, ""])


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return _scalar(value)


def _nodes(node: yaml.Node, key: str = "", line: int = 1) -> Iterator[tuple[str, tuple[int, yaml.Node]]]:
    """(dotted key, (line of the key, node)) of a node and of all nodes in it."""
    yield key, (line, node)
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(value, f"{key}.{name.value}" if key else str(name.value), name.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _nodes(value, f"{key}[{number}]", value.start_mark.line + 1)


def _block(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The lines of a section or a list, each with its dotted key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner, label = (f"{key}.{name}" if key else str(name)), f"{_scalar(name)}:"
            if isinstance(item, str) and _is_text(item):
                yield f"{label} |" + "-" * (not item.endswith("\n")), inner
                yield from ((f"  {line}", "") for line in item.splitlines())
            elif _fits_a_line(item):
                yield f"{label} {inline(item)}", inner
            else:
                yield label, inner
                yield from (("  " + text, place) for text, place in _block(item, inner))
    else:
        for number, item in enumerate(value):
            inner = f"{key}[{number}]"
            rows = [(inline(item), inner)] if _fits_a_line(item) else _block(item, inner)
            for row, (text, place) in enumerate(rows):
                yield ("  " if row else "- ") + text, place


def _fits_a_line(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(not isinstance(item, Mapping | list | tuple) for item in value) and len(inline(value)) <= WIDTH // 2
    return not (isinstance(value, Mapping) and value)


def _commented(text: str, comment: str) -> str:
    if not comment:
        return text
    for line in (f"{text:<{COMMENT_COLUMN}}  # {comment}", f"{text}  # {comment}"):
        if len(line) <= WIDTH:
            return line
    return f"{' ' * (len(text) - len(text.lstrip(' ')))}# {comment}\n{text}"


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    if isinstance(value, int | float):
        return repr(value)
    return str(value) if _is_plain(str(value)) else _quoted(str(value))


def _is_text(text: str) -> bool:
    """Whether a text has several lines and can be written as a block, below its key."""
    lines = text.removesuffix("\n").split("\n")
    return len(lines) > 1 and all(line.isprintable() and line.strip() for line in lines) and lines[0][0] != " "


def _is_plain(text: str) -> bool:
    """Whether a text needs no quotes, after a key and in a list."""
    if re.fullmatch(r"[A-Za-z_/][\w./-]*[./-][\w./-]*", text, re.ASCII):
        return True  # most texts are names of targets and paths: a faster check than the parser
    try:
        return bool(parse(f"key: {text}\nlist: [{text}]")[0] == {"key": text, "list": [text]})
    except yaml.YAMLError:
        return False


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)).rstrip("\n")
