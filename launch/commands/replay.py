"""drumbeat replay RUN --step S: was it the software or the machine?"""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.launch.commands.arguments import add_run, add_trust, integer

HELP = "compute a step again: was it the software or the machine?"

EXIT_CODES = """\
exit codes:
  0  all steps are equal: the software did it
  1  a step differs
  2  it cannot be computed again"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Compute a step of a run again, on this machine and on as many ranks, from the
nearest checkpoint before it, and compare each step with the run's log. The run
itself does not change."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EXIT_CODES
    add_run(parser)
    parser.add_argument("--step", type=integer, required=True, metavar="S", help="the step, counted from 1")
    parser.add_argument("--debug", action="store_true", help="stop in pdb before the step, in one process")
    parser.add_argument("--rank", type=integer, metavar="R", help="with --debug, the rank whose part of the "
                        "step it computes (default: 0)")
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.replay.replay import replay, step_into
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.trust import check_trusted

    if args.rank is not None and not args.debug:
        raise ConfigError(Fault(what="--rank needs --debug", where="command line", given=f"--rank {args.rank}",
                                remedy="Without --debug, all ranks compute the step. Remove --rank, or add --debug."))
    found = find_run(args.run, Path(args.runs))
    check_trusted(found, args)
    return step_into(found, args.step, args.rank or 0) if args.debug else replay(found, args.step)
