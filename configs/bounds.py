"""Bounds of what a config expands to. Aliases of YAML and references to other keys multiply: in a few lines, a text of
ten characters becomes one of a billion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

MOST_BYTES = 4 << 20
"""The size of a config file."""
MOST_VALUES = 50_000
"""Values and keys of a config with all aliases and references written out."""
DEEPEST = 40
"""Sections and lists within each other, and references that lead to other references."""

REFERENCE_COST = 50
"""How many values a reference counts as: resolving one takes about a millisecond."""
INNERMOST = re.compile(r"\$\{([^${}]*)\}")
"""A reference without references in it."""
COMPUTED_COST = MOST_VALUES // 5
"""The same for a reference whose key is computed, ${a.${b}}: it may lead anywhere."""

Key = tuple[Any, ...]
"""The names and, in lists, the numbers that lead to a value."""

KINDS: Mapping[type, tuple[str, ...]] = {
    yaml.ScalarNode: ("str", "int", "float", "bool", "null", "merge", "value"),
    yaml.SequenceNode: ("seq",), yaml.MappingNode: ("map",)}
"""The tags that a config may have."""


def check_node(node: yaml.Node) -> None:
    """Checks a YAML document before values are made of it. Raises `yaml.constructor.ConstructorError` for an alias
    that contains itself, and for values that are too many, too deep or of a type that a config does not have."""
    _expanded(node, {}, 0)


def _expanded(node: yaml.Node, sizes: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """The values below a node with all aliases written out, and its height."""
    if id(node) in sizes:
        size, height = sizes[id(node)]
        if not size:
            raise _error("an alias contains itself", node)
    else:
        if node.tag.removeprefix("tag:yaml.org,2002:") not in KINDS[type(node)]:
            raise _error(f"a config has no values of the type {node.tag}", node)
        sizes[id(node)] = 0, 0
        size, height = 1, 0
        for child in _children(node):
            inner, below = _expanded(child, sizes, depth + 1)
            size, height = size + inner, max(height, below + 1)
            if size > MOST_VALUES:
                raise _error(f"with all aliases written out, there are more than {MOST_VALUES:,} values here", node)
        sizes[id(node)] = size, height
    if depth + height > DEEPEST:
        raise _error(f"more than {DEEPEST} sections and lists are within each other", node)
    return size, height


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class ExpansionError(Exception):
    """The references of a config expand to too much."""

    def __init__(self, key: Key, problem: str) -> None:
        super().__init__(problem)
        self.key = key_text(key)


def check_references(values: Mapping[str, Any]) -> None:
    """Raises `ExpansionError` if references lead to references too often, or multiply to too many values."""
    _References(values).expanded((), 0)


class _References:
    """The values of a config with its references, ${KEY}, written out."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.sizes: dict[Key, tuple[int, int]] = {}

    def expanded(self, key: Key, links: int) -> tuple[int, int]:
        """The values below a key, of which a reference counts as many, and how many references lead from one to the
        next. `links` are those that have led to this key."""
        if key not in self.sizes:
            self.sizes[key] = 0, 0  # stays so in a cycle, which OmegaConf reports
            node = self.at(key)
            size, inner, step = 1, [], 0
            if isinstance(node, Mapping | list):
                inner = [(*key, part) for part in (node if isinstance(node, Mapping) else range(len(node)))]
            elif isinstance(node, str) and "${" in node:
                size, inner, step = _reference_cost(node), _targets(node, key), 1
            longest = 0
            for one in inner if links <= DEEPEST else ():
                values, below = self.expanded(one, links + step)
                size, longest = size + values, max(longest, below + step)
                if size > MOST_VALUES:
                    raise ExpansionError(key, "with all references written out, there are more than "
                                              f"{MOST_VALUES:,} values here")
            self.sizes[key] = size, longest
        if links + self.sizes[key][1] > DEEPEST:
            raise ExpansionError(key, f"more than {DEEPEST} references lead from one to the next")
        return self.sizes[key]

    def at(self, key: Key) -> Any:
        """The node at a key; None if there is none."""
        node: Any = self.root
        for part in key:
            try:
                node = node[int(part) if isinstance(node, list) else part]
            except (KeyError, ValueError, IndexError, TypeError):
                return None
        return node


def key_text(key: Key) -> str:
    """A key as it is written: data.transforms.train[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def _reference_cost(text: str) -> int:
    """How many values a text with references counts as, without those that it refers to."""
    contents = INNERMOST.findall(text)
    outer = text.count("${") - len(contents)  # these contain references
    computed = outer + sum(":" in content and not content.startswith("oc.env:") for content in contents)
    return REFERENCE_COST * text.count("${") + COMPUTED_COST * computed


def _targets(text: str, key: Key) -> list[Key]:
    """The keys that a text at `key` refers to. ${.x} is a key beside it, ${..x} one above."""
    found = []
    for content in INNERMOST.findall(text):
        name = content.strip().lstrip(".")
        dots = len(content.strip()) - len(name)
        above = key[:max(0, len(key) - dots)] if dots else ()
        found.append((*above, *filter(None, re.split(r"[.\[\]]", name))))
    return found
