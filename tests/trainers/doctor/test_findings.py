"""Findings as text and as JSON: ordered by severity, at most 80 columns, a few examples."""

from __future__ import annotations

from drumbeat.configs.errors import WIDTH
from drumbeat.trainers.doctor.findings import Finding, Findings, plural


def findings() -> Findings:
    found = Findings()
    found.fact("samples", "train 7")
    found.fact("samples", "validation 3")
    found.add([Finding("note", "copies", "2 copies"),
               Finding("problem", "unreadable", "7 samples cannot be read", "Remove them.",
                       [f"{'folder/' * 11}{number}.png" for number in range(7)])])
    return found


def test_the_worst_comes_first() -> None:
    lines = str(findings()).splitlines()
    assert lines[:4] == ["samples    train 7", "           validation 3", "", "problem    7 samples cannot be read"]
    assert lines[4].endswith("0.png")
    assert lines[8:] == [f"             {'folder/' * 11}4.png", "             ... and 2 more",
                         "           Remove them.", "", "note       2 copies"]


def test_long_lines_are_wrapped() -> None:
    finding = Finding("warning", "x", "word " * 30, "advice " * 30, ["file " * 30])
    assert max(map(len, str(finding).splitlines())) <= WIDTH
    assert "\n             file file" in str(finding)
    assert "\n               file file" in str(finding)


def test_the_verdict() -> None:
    found = findings()
    assert found.verdict == "1 problem, see above"
    found.add([Finding("warning", "x", "y"), Finding("warning", "x", "z")])
    assert found.verdict == "1 problem and 2 warnings, see above"
    assert Findings().verdict == "no problems found"
    assert Findings(found=[Finding("note", "x", "y")]).verdict == "no problems found"


def test_json_has_all_examples() -> None:
    found = findings().as_json()
    assert found["facts"] == {"samples": ["train 7", "validation 3"]}
    first, second = found["findings"]
    assert (first["kind"], first["severity"]) == ("unreadable", "problem")
    assert (first["count"], len(first["examples"])) == (7, 7)
    assert second == {"severity": "note", "kind": "copies", "text": "2 copies", "advice": "", "count": 0,
                      "examples": []}


def test_plurals() -> None:
    assert [plural(n, "pair") for n in (0, 1, 2000)] == ["0 pairs", "1 pair", "2,000 pairs"]
