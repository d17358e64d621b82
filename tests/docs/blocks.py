"""The code blocks of the pages: where each stands, what it is written in, and what is done with it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.layers import ROOT

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""All pages of the documentation."""

NOT_RUN = {
    "installs": "installs packages",
    "endless": "goes on until somebody ends it, or opens a browser or an editor",
    "long": "takes minutes; what it does is tested elsewhere",
    "cluster": "needs a SLURM cluster, and submits or changes jobs there",
    "example": "shows what a command prints, or a file holds, where the test cannot bring that about",
    "script": "a file that a command below it runs",
    "other": "code of another library, for comparison, which is not installed",
}
"""The blocks that are not run say so, `test="TAG"` behind the language, and here is why. Commands in them are parsed
all the same, and Python is compiled."""
DRY_RUN = "dry-run"
"""The tag of a block whose runs are only planned: --dry-run is added. Commands that ask for GPUs, nodes or SLURM are
planned in any block. Those that need an allocation (--here) are parsed; tests/slurm/test_allocation.py runs them."""
LANGUAGES = ("console", "bash", "python", "yaml", "json", "text")

OPENING = re.compile(r"(?P<indent> *)(?P<fence>`{3,})(?P<info>.*)")
OPTION = re.compile(r' (\w+)="([^"]*)"')
PLANNED = re.compile(r" --(gpus|nodes|slurm)\b")
STARTS = re.compile(r"(python launch/run\.py|(python -m )?drumbeat (run|resume|rerun|fork|sweep)) ")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    """Of the opening fence, from 1."""
    language: str
    title: str
    """The file that it is the text of; '' for none."""
    tag: str
    """What `test="..."` says; '' where it is run as it stands."""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.tag in ("", DRY_RUN)

    def steps(self) -> Iterator[tuple[str, list[str]]]:
        """Each command of a console or bash block as it is to be run, with the lines that it is said to print."""
        lines = self.text.splitlines()
        if self.language == "bash":
            yield "\n".join(self.planned(line) for line in lines), []
            return
        while lines:
            command = lines.pop(0)
            assert command.startswith("$ "), f"{self}: a console block begins with a command, '$ ...'"
            command = command[2:]
            while command.endswith("\\"):
                command += "\n" + lines.pop(0).removeprefix("> ")
            shown: list[str] = []
            while lines and not lines[0].startswith("$ "):
                shown.append(lines.pop(0))
            yield self.planned(command), shown

    def planned(self, command: str) -> str:
        """The command, with --dry-run where it would need what is not here."""
        typed, hash_, comment = command.partition("  #")
        if STARTS.match(typed) and " --here" in typed:
            return "true"
        if not STARTS.match(typed) or not (self.tag == DRY_RUN or PLANNED.search(typed)) or "--dry-run" in typed:
            return command
        return f"{typed.rstrip()} --dry-run{hash_ and '  #'}{comment}"

    def commands(self) -> Iterator[list[str]]:
        """The words behind `drumbeat` of each command that is one of ours."""
        for step, _ in self.steps():
            for line in step.replace("\\\n", " ").splitlines():
                argv = _argv(line)
                if argv[:2] == ["python", "launch/run.py"]:
                    yield ["run", *argv[2:]]
                elif "drumbeat" in argv[:3]:
                    yield argv[argv.index("drumbeat") + 1:]


def _argv(line: str) -> list[str]:
    """The words of a command, up to the end of its part in a pipe."""
    try:
        argv = shlex.split(line, comments=True)
    except ValueError:
        return []
    ends = [argv.index(end) for end in ("|", "&&", ";", ">", "2>&1", "&") if end in argv]
    return argv[:min(ends, default=len(argv))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order. Fails for a block that is not fenced, has no language, or is not closed."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        opening = OPENING.fullmatch(line)
        if not opening:
            before = lines[number - 2] if number > 1 else ""
            assert not (line.startswith("    ") and not before.strip()) or _in_list(lines, number - 1), (
                f"{page.relative_to(ROOT)}:{number}: an indented block; code stands between fences")
            continue
        start, body = number, []
        while lines[number].strip() != opening["fence"]:
            body.append(lines[number].removeprefix(opening["indent"]))
            number += 1
        number += 1
        options = dict(OPTION.findall(opening["info"]))
        found.append(Block(page=page, line=start, language=opening["info"].split(" ")[0], tag=options.get("test", ""),
                           title=options.get("title", ""), text="\n".join(body) + "\n"))
    return found


def _in_list(lines: list[str], at: int) -> bool:
    """Whether an indented line belongs to an item of a list."""
    for line in reversed(lines[:at]):
        if line.strip() and not line.startswith("  "):
            return bool(re.match(r"([-*]|\d+\.) ", line))
    return False
