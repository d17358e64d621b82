"""All benchmarks on CPUs, one after the other, in less than half an hour on two cores and without network access.

    python -m benchmarks [PART ...] [--out FILE] [--readme]

Each part is a module of this package, which can also be run alone, with its own options. The figures of all of them are
written to one JSON file, FILE; --readme also writes them into the table of benchmarks/README.md. Exit code 1 if a part
could not be measured: its entry says why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.report import Row, wanted

README = Path(__file__).parent / "README.md"
START, END = "<!-- figures -->", "<!-- end -->"

PARTS: Mapping[str, tuple[str, ...]] = {
    "tiny_steps": ("--rounds", "2"),
    "loop": ("--rounds", "1"),
    "step_times": ("--pairs", "10"),
    "any_width": ("--pairs", "8"),
    "average": ("--steps", "5"),
    "data": ("--rounds", "3"),
    "epochs": ("--rounds", "1"),
    "checkpoint": ("--rounds", "3"),
    "evaluation": ("--rounds", "1"),
    "start": (),
    "recovery": ("--minutes", "4"),
    "stragglers": ("--stopped", "3", "--clean", "3"),
    "listing": (),
    "scale": (),
}
"""The arguments of each part, by the name of its module. All of them together take less than half an hour."""
LIMIT = 600
"""Seconds that a part may take."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a part measured."""

    seconds: float
    rows: tuple[Row, ...] = ()
    limit: str = ""
    """What no program can do better than, and other notes, as text."""
    error: str = ""
    """Why there are no rows."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of a run of the benchmarks."""

    machine: str
    parts: Mapping[str, Figures] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Report:
        """The report of a JSON document."""
        values = json.loads(text)
        return cls(machine=values["machine"], parts={
            name: Figures(**part | {"rows": tuple(Row(**row) for row in part["rows"])})
            for name, part in values["parts"].items()})

    def json(self) -> str:
        """The report as a JSON document."""
        return json.dumps(asdict(self), indent=1) + "\n"


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), metavar="FILE",
                        help="the JSON file; parts that are not run keep their figures in it (default: %(default)s)")
    parser.add_argument("--readme", action="store_true", help="write the table of benchmarks/README.md")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    earlier = Report.read(args.out.read_text()).parts if args.parts and args.out.exists() else {}
    parts = dict(earlier)
    for name in args.parts or PARTS:
        parts[name] = measure(name)
        print(f"{name}: {parts[name].error or 'done'}, {parts[name].seconds:.0f} s", file=sys.stderr, flush=True)
        report = Report(machine=describe_machine(), parts={name: parts[name] for name in PARTS if name in parts})
        args.out.write_text(report.json())
    if args.readme:
        README.write_text(with_table(README.read_text(), report))
    return int(any(parts[name].error for name in args.parts or PARTS))


def measure(name: str) -> Figures:
    """Runs a part in a process of its own."""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *PARTS[name], "--json"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(process.pid, 15)
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return Figures(seconds=time.monotonic() - began, error=f"not done within {LIMIT} s")
    seconds = time.monotonic() - began
    if process.returncode:
        return Figures(seconds=seconds, error=(err.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    try:
        values = json.loads(out)
    except json.JSONDecodeError:
        return Figures(seconds=seconds, error=f"printed something else than JSON: {out[:80]!r}")
    return Figures(seconds=seconds, rows=tuple(Row(**row) for row in values["rows"]), limit=values["limit"])


def describe_machine() -> str:
    """Processor, cores, memory and versions, in a line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else platform.machine()}, {memory:.0f} GiB, "
            f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, "
            f"torch {version('torch').split('+')[0]}")


def with_table(text: str, report: Report) -> str:
    """The page with the report's table in place of its own."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{table(report)}\n{END}{rest.split(END)[1]}"


def table(report: Report) -> str:
    """The rows of all parts as Markdown, with what limits each part."""
    minutes = sum(part.seconds for part in report.parts.values()) / 60
    left_out = [name for name in PARTS if name not in report.parts]
    lines = [f"On {report.machine}, in {minutes:.0f} minutes." + (
        f" Without {', '.join(left_out)}." if left_out else ""), ""]
    for name, part in report.parts.items():
        lines += [f"### `python -m benchmarks.{name}`", ""]
        if part.error:
            lines += [f"Not measured: {part.error}", ""]
            continue
        lines += ["| | unit | Drumbeat | peer | name of the peer | ratio | wanted |", "|---|---|---|---|---|---|---|"]
        lines += [f"| {row.name} | {row.unit} | {row.ours:.4g} | {row.peer:.4g} | {row.peer_name} | {row.ratio:.3g} | "
                  f"{wanted(row)} |" for row in part.rows]
        lines += ["", *part.limit.strip().splitlines(), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
