"""Finds values that are probably a password or a key, by the names of their keys and variables; files: see
`launch/plan/secrets.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drumbeat.configs.layers import leaves
from drumbeat.configs.yaml_text import dump, parse

HIDDEN = "***"

NAME = re.compile(
    r"password|passwd|passphrase|(?:^|_)secrets?(?:_|$)|credentials?$|(?:^|_)(?:dsn|pat|token)$|bearer|"
    r"(?:api|access|secret|private|auth|account|encryption|signing|license|ssh)_?key(?:_?id)?s?(?:_\d+)?$|"
    r"_(?:pass|pwd)$|(?:^|_)(?:passcode|jwt|otp|authorization|webhook(?:_url)?|connection_string)$|"
    r"(?:^|_)(?:hf|api|auth|access)_?tokens?(?:_\d+)?$|(?:^|_)token_\d+$")
"""Names as Weights & Biases, Hugging Face, cloud providers and databases give them to their passwords and keys."""
VARIABLE = re.compile("[A-Z][A-Z0-9]*_(KEY|TOKENS|PASS)")
"""Names of environment variables; as keys of a config, such words are ordinary."""
SECRET_TEXT = re.compile(r"://[^/\s:@]+:[^/\s@$]+@|\bBearer\s+[^\s$\"']|"
                         r"\b(wandb|huggingface-cli|hf auth) login\s+[^\s$-]")
SPECIAL_TOKEN = re.compile("(?:pad|eos|bos|unk|cls|sep|mask|start|end|stop)_token$")
"""Arguments of tokenizers, which are no secrets."""

def is_secret_name(name: str) -> bool:
    """Whether a key or an environment variable of this name probably holds a password or a key."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.]", "_", name).lower()
    return bool(VARIABLE.fullmatch(name) or NAME.search(words)) and not SPECIAL_TOKEN.search(words)


def holds_secret(text: str) -> bool:
    """Whether a text probably contains a password or a key: a URL with a password, a header of HTTP, or a login."""
    return bool(SECRET_TEXT.search(text))


def hidden(values: Any, name: str = "") -> Any:
    """The values of a config with stars for those that are probably secret. References, ${...}, are shown."""
    if isinstance(values, Mapping):
        return {key: hidden(value, str(key) if is_secret_name(str(key)) else name) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [hidden(value, name) for value in values]
    keeps = values in (None, "") or isinstance(values, bool) or (isinstance(values, str) and values.startswith("${"))
    return HIDDEN if name and not keeps else values


def literal_secrets(values: Mapping[str, Any]) -> list[str]:
    """The dotted keys of values that are probably secret and are written out, not referred to."""
    return [key for (key, value), (_, stars) in zip(leaves(values), leaves(hidden(values)), strict=True)
            if value != stars]


def shown(text: str) -> str:
    """The text of a run's config, as it is shown to others: with stars for what is probably secret."""
    values, lines, _ = parse(text)
    return dump(hidden(values if isinstance(values, Mapping) else {}), dict(_comments(text.splitlines(), lines)))


def _comments(rows: Sequence[str], lines: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The comment of each key, as `dump` writes it: behind its value, or in the line above."""
    for key, line in lines.items():
        above = rows[line - 2] if line > 1 and rows[line - 2].lstrip().startswith("# ") else ""
        found = re.search("# (.*)", above) or re.search("  # (.*)", rows[line - 1])
        if found and not is_secret_name(key.rpartition(".")[2]):
            yield key, found[1]
