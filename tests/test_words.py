"""The words of the repository: the field's, in plain English. Some that were used before are kept out, so that a reader
from PyTorch, Lightning or SLURM meets no second name for a thing that has one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT

INSTEAD = {
    r"judg(e|es|ed|ing)": "evaluate; decide",
    r"in vain": "without success; timed out",
    r"heard of": "last heartbeat",
    r"signs? of life": "heartbeat",
    r"at work": "running",
    r"(spoilt|spoils?)": "corrupted",
    r"(struck|blows?)": "injected fault",
    r"deaf": "ignoring signals",
    r"no number": "NaN or Inf; not a number",
    r"sets? aside": "quarantined",
    r"by the book": "implemented from the documentation, untested",
    r"(go|goes|going|went|gone) on with": "resume; continue",
    r"it is so that": "leave it out",
    r"(is|are|was|were|be) told of": "reported",
    r"in words": "as text",
    r"anew": "again",
    r"one at least": "at least one",
    r"(mend|mends|mended)": "fix",
    r"none of its own": "no ... of its own",
    r"have a word": "print",
    r"there is no telling": "unknown",
}
"""What to write instead of each expression."""

NOT_SEARCHED = {"LICENSE", "tests/test_words.py"}

GAP = r"(?:[\s_#]|\"\s*f?\")+"
"""Between two words: spaces, a line break (also of a comment, or between two strings), an underscore."""
PATTERNS = {re.compile(rf"(?<![^\W_]){words.replace(' ', GAP)}(?![^\W_])", re.IGNORECASE): instead
            for words, instead in INSTEAD.items()}


def found(text: str) -> list[tuple[int, str, str]]:
    """(line, expression, what to write instead) of each expression in a text."""
    return sorted((text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead)
                  for pattern, instead in PATTERNS.items() for match in pattern.finditer(text))


def files() -> list[str]:
    """The text files that git tracks, or would."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file() and not (ROOT / name).is_symlink()
            and name not in NOT_SEARCHED]


def test_the_old_words_stay_out() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    wrong = []
    for name in files():
        try:
            text = Path(ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{name}:{line}: '{words}': write '{instead}'" for line, words, instead in found(text)]
    assert wrong == []


@pytest.mark.parametrize(("text", "expected"), [
    ("drumbeat evaluate RUN judges the weights", [(1, "judges", "evaluate; decide")]),
    ("def test_a_run_at_work() -> None:", [(1, "at_work", "running")]),
    ("# it waited in\n# vain", [(1, "in # vain", "without success; timed out")]),
    ('f"the run was heard "\n    f"of 3 s ago"', [(1, 'heard " f"of', "last heartbeat")]),
    ("Going on with the run.\nA loss that is no number.",
     [(1, "Going on with", "resume; continue"), (2, "no number", "NaN or Inf; not a number")]),
    ("The judgement of a blower at workers, in wording, deafen, newly; there is no numbering.", []),
])
def test_what_is_found(text: str, expected: list[tuple[int, str, str]]) -> None:
    assert found(text) == expected
