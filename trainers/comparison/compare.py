"""Compares runs, prints what differs between them, and writes a report.

    python -m drumbeat.trainers.comparison.compare RUN RUN ... [--split test] [--checkpoint best] [--group PATTERN]
        [--out FILE | --json]

is what `drumbeat compare` runs. Everything is read from the runs' folders; no code of theirs is executed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, UserError
from drumbeat.configs.layers import short
from drumbeat.configs.preconditions import SPLITS
from drumbeat.configs.run.files import json_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.terminal import print_text_only
from drumbeat.trainers.comparison.comparison import compare
from drumbeat.trainers.comparison.page import write_page
from drumbeat.trainers.comparison.text import comparison_text


def main(argv: Sequence[str]) -> int:
    """Prints the comparison. Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--checkpoint")
    parser.add_argument("--group")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        found = compare([*map(RunDir, args.runs)], split=args.split, which=args.checkpoint, pattern=args.group)
        if args.json:
            print(json_text(found.as_json()))
            return 0
        try:
            write_page(found, args.out)
        except OSError as error:
            raise RunError(Fault(what=f"the report cannot be written: {error.strerror}", where=str(args.out),
                                 remedy="Create the folder first, or name another file with --out.")) from error
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{comparison_text(found)}\n\nreport    {short(args.out)} ({args.out.stat().st_size / 1e3:,.0f} kB, "
          "self-contained)")
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main(sys.argv[1:]))
