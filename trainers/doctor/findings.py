"""What the doctor finds: facts about the data, and findings by severity, as text of 80 columns and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from drumbeat.configs.errors import hang

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""A problem makes results wrong, or ends a run; a warning probably does; a note is good to know."""
EXAMPLES, MOST = 5, 1000
"""How many examples of a finding are printed, and are in the JSON."""
LABEL = 11
"""Columns of the labels."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one set, or between two."""

    severity: Severity
    kind: str
    """A name for programs: "unreadable"."""
    text: str
    """What was found, with numbers: a sentence without a full stop."""
    advice: str = ""
    """What to do: whole sentences."""
    examples: Sequence[str] = ()
    shown: int = EXAMPLES
    """How many examples are printed."""

    def __str__(self) -> str:
        hidden = len(self.examples) - self.shown
        examples = [*self.examples[:self.shown], *[f"... and {hidden:,} more"][:max(0, hidden)]]
        return "\n".join([hang(f"{self.severity:<{LABEL}}", self.text),
                          *(hang(" " * (LABEL + 2), example, LABEL + 4) for example in examples),
                          *([hang(" " * LABEL, self.advice)] if self.advice else [])])


def plural(n: int, noun: str) -> str:
    """A number and what is counted: "1 pair", "2,000 pairs"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def of(some: int, total: int, noun: str, name: str, one: str, several: str) -> str:
    """How many samples of a set are so: "1 of 24 images of train is dark", "2 of 24 images of train are dark"."""
    return f"{some:,} of {plural(total, noun)} of {name} {one if some == 1 else several}"


@dataclass
class Findings:
    """Everything that was found."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    """(label, text)"""
    found: list[Finding] = field(default_factory=list)

    def fact(self, label: str, text: str) -> None:
        """Adds a line."""
        self.facts.append((label, text))

    def add(self, findings: Iterable[Finding]) -> None:
        self.found.extend(findings)

    def of(self, severity: Severity) -> list[Finding]:
        return [one for one in self.found if one.severity == severity]

    @property
    def verdict(self) -> str:
        """The numbers of findings as text; "no problems found" without problems and warnings."""
        counts = [plural(len(some), severity) for severity in ("problem", "warning")
                  if (some := self.of(severity))]  # type: ignore[arg-type]
        return f"{' and '.join(counts)}, see above" if counts else "no problems found"

    def __str__(self) -> str:
        previous, rows = "", []
        for label, text in self.facts:
            rows.append(hang(f"{label if label != previous else '':<{LABEL}}", text))
            previous = label
        ordered = [str(one) for severity in SEVERITIES for one in self.of(severity)]
        return "\n".join([*rows, *(f"\n{one}" for one in ordered)])

    def as_json(self) -> dict[str, Any]:
        """Facts by label, and findings by severity."""
        facts: dict[str, list[str]] = {}
        for label, text in self.facts:
            facts.setdefault(label, []).append(text)
        return {"facts": facts, "findings": [
            {"severity": one.severity, "kind": one.kind, "text": one.text, "advice": one.advice,
             "count": len(one.examples), "examples": list(one.examples[:MOST])}
            for severity in SEVERITIES for one in self.of(severity)]}
