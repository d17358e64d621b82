"""References to environment variables in a config: ${oc.env:NAME}, ${oc.env:NAME,DEFAULT}, ${oc.decode:${oc.env:NAME}}.

A number, a path or a target is read when the run is submitted, and recorded: results depend on it. Any other text in
the arguments of a target, and whatever is named like a secret, stays a reference, so that its value is in no file of
the run; `trainers/target.py` reads it where the object is built. Reading a run's config resolves none.
"""

from __future__ import annotations

import hashlib
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from drumbeat.configs.errors import Fault
from drumbeat.configs.faults import fields_of, item_of
from drumbeat.configs.phase_values import refers
from drumbeat.configs.secrets import is_secret_name

VARIABLE = re.compile(r"\boc\.env\s*:\s*['\"]?([^,}'\"\s]+)")
"""The name of an environment variable in a reference."""


class UnsetVariableError(Exception):
    """An environment variable that a config refers to is not set. `str()` of it is the reason."""


def variables(text: Any) -> list[str]:
    """The names of the environment variables that a value of a config refers to."""
    return VARIABLE.findall(text) if isinstance(text, str) and "${" in text else []


def value(text: str) -> Any:
    """A text with the values of its environment variables. Raises `UnsetVariableError`."""
    try:
        return OmegaConf.create({"value": text})["value"]
    except OmegaConfBaseException as error:
        raise UnsetVariableError(str(error).splitlines()[0].removeprefix(
            "KeyError raised while resolving interpolation: ").strip('"')) from None


def unresolved(node: Any) -> Any:
    """Values of which OmegaConf resolves nothing but references to other keys, ${KEY}: all resolvers, ${NAME:...}, and
    what a phase knows, ${phase.steps}, are plain text."""
    if isinstance(node, dict):
        return {name: unresolved(inner) for name, inner in node.items()}
    if isinstance(node, list):
        return list(map(unresolved, node))
    return _as_text(node, lambda call: True) if isinstance(node, str) else node


def recorded(node: Any, kind: Any, key: str, is_recorded: Callable[[str, str], bool], faults: list[Fault]) -> Any:
    """Values of the type `kind`, of which OmegaConf resolves what is recorded when a run is submitted; what stays a
    reference is plain text. `is_recorded` says so of a text, given the name of its key. Adds faults at dotted keys for
    variables that are not set, and for secrets that would be recorded."""
    if isinstance(node, dict):
        fields = fields_of(kind)
        return {name: recorded(inner, fields.get(name, Any) if fields is not None else item_of(kind),
                               f"{key}.{name}".removeprefix("."), is_recorded, faults) for name, inner in node.items()}
    if isinstance(node, list):
        of = (*typing.get_args(kind), Any)[0]
        return [recorded(inner, of, f"{key}[{number}]", is_recorded, faults) for number, inner in enumerate(node)]
    if not variables(node) and not refers(node):
        return node

    def stays(call: str) -> bool:
        if refers(call):
            return True
        names, name = variables(call), re.sub(r"\[\d+\]", "", key).rpartition(".")[2]
        secret = any(is_secret_name(one) for one in names)
        try:
            found = value(call) if names else None
        except UnsetVariableError as error:
            faults.append(Fault(what=f"{key} refers to something that does not exist: {error}", where=key, given=node,
                                remedy=f"Set it, or give a default: ${{oc.env:{names[0]},DEFAULT}}"))
            return True
        if secret and kind is not Any:
            faults.append(Fault(what=f"{key} would be recorded with a value that is probably secret", where=key,
                                given=node, remedy="Only an argument of a target can refer to a secret. Processes "
                                                  "inherit the variables of the shell that starts the run."))
        return bool(names) and (secret or is_secret_name(name) or (
            kind is Any and isinstance(found, str) and not is_recorded(name, node.replace(call, found))))

    return _as_text(node, stays)


def late(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted key and text of each value that is still a reference to environment variables."""
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from late(inner, f"{key}.{name}".removeprefix("."))
    elif isinstance(node, list | tuple):
        for number, inner in enumerate(node):
            yield from late(inner, f"{key}[{number}]")
    elif variables(node):
        yield key, node


def digest(key: str, text: str, salt: str) -> str:
    """A digest with which a resume notices that the value of a reference has changed; '' for a secret, which may. It
    is short and slow to compute, so that it does not give the value away. Raises `UnsetVariableError`."""
    found = value(text)
    if any(map(is_secret_name, [*variables(text), re.sub(r"\[\d+\]", "", key).rpartition(".")[2]])):
        return ""
    return hashlib.pbkdf2_hmac("sha256", str(found).encode(), f"{salt} {key}".encode(), 100_000, 4).hex()


def _as_text(text: str, stays: Callable[[str], bool]) -> str:
    """A text in which OmegaConf reads those calls of resolvers as plain text that stay references."""
    done, parts = 0, []
    for start, end in _calls(text):
        if stays(text[start:end]):
            backslashes = len(text[:start]) - len(text[:start].rstrip("\\"))
            parts += [text[done:start - backslashes],
                      re.sub(r"(\\*)\$\{", r"\1\1\\${", text[start - backslashes:end])]
            done = end
    return "".join([*parts, text[done:]])


def _calls(text: str) -> Iterator[tuple[int, int]]:
    """The spans of ${NAME:...} and ${phase.NAME} in a text; not of references to other keys, ${KEY}, nor of an escaped
    one."""
    start = text.find("${")
    while start >= 0:
        depth, end = 0, start + 1
        while end < len(text) and (depth or end == start + 1):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        escaped = (len(text[:start]) - len(text[:start].rstrip("\\"))) % 2
        if not escaped and (":" in text[start:end] or "${" in text[start + 2:end] or refers(text[start:end])):
            yield start, end
        start = text.find("${", end)
