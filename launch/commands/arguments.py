"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import NamedTuple


def add_run(parser: argparse.ArgumentParser, *, runs: bool = True) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, its id or a unique prefix of it, or a name")
    if runs:
        add_runs(parser)


def add_runs(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The folder of all runs."""
    parser.add_argument("--runs", default="runs", metavar="DIR", help="the folder of all runs (default: runs)")


def add_config(parser: argparse.ArgumentParser, options: str, changes: str = "", *,
               optional: bool = False) -> None:
    """The config, and changes to it."""
    parser.usage = f"%(prog)s CONFIG [KEY=VALUE ...]{options}"
    parser.add_argument("words", nargs="*" if optional else "+", metavar="CONFIG",
                        help="a config file or the name of a shipped config, followed by changes to it, KEY=VALUE"
                             f"{': ' * bool(changes)}{changes}")


def add_checkpoint(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The checkpoint of a run."""
    parser.add_argument("--checkpoint", metavar="WHICH", help="best, last or a step (default: best, or last "
                        "without a validation set)")


def add_new_code(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The choice of the code."""
    parser.add_argument("--new-code", action="store_true", help="use the code as it is now, not the run's copy")


def add_trust(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The consent to execute what another user has written."""
    parser.add_argument("--trust", action="store_true", help="execute the run's code and config, although another user "
                        "may have written them")


def add_start_options(parser: argparse.ArgumentParser, ranks: str, nodes: str) -> argparse._ArgumentGroup:
    """The options of all commands that start a run; `ranks` and `nodes` describe the defaults. Returns the group that
    further options belong to."""
    size = parser.add_argument_group("number of processes")
    size.add_argument("--gpus", type=integer, metavar="N", help=f"ranks on each node, one GPU each (default: {ranks})")
    size.add_argument("--procs", type=integer, metavar="N", help="ranks on each node, on the CPU")
    size.add_argument("--nodes", type=node_count, metavar="K", help="nodes, or the least and the most of them, as in "
                      f"1-4 (default: {nodes})")
    place = parser.add_argument_group("where to run (default: on this machine, attached to this terminal)")
    place.add_argument("--detach", action="store_true", help="return at once and leave the run running")
    place.add_argument("--debug", action="store_true", help="run one rank in this process, so that breakpoints work")
    place.add_argument("--slurm", action="store_true", help="submit to SLURM and return")
    place.add_argument("--here", action="store_true", help="run in the SLURM allocation of this shell (salloc)")
    place.add_argument("--profile", metavar="SITE", help="cluster profile: configs/clusters/SITE.yaml")
    what = parser.add_argument_group("other options")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and start nothing")
    what.add_argument("--no-preflight", action="store_true", help="do not check model, data and cluster first")
    add_runs(what)
    return what


def add_no_snapshot(group: argparse._ArgumentGroup) -> None:
    """The choice to run without a copy of the code."""
    group.add_argument("--no-snapshot", action="store_true", help="run the code in place, not a copy of it")


class NodeCount(NamedTuple):
    """A number of nodes."""

    most: int
    least: int | None = None
    """The number with which the run can do, too; None if that is not given."""


def node_count(text: str) -> NodeCount:
    """Parses a number of nodes, such as 4, or 1-4 as sbatch writes it, for argparse."""
    least, dash, most = text.partition("-")
    if not (least.isdecimal() and (most.isdecimal() or not dash)) or (dash and int(least) > int(most)):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of nodes nor a range of it, such as 1-4")
    return NodeCount(int(most), int(least)) if dash else NodeCount(int(least))


def integer(text: str) -> int:
    """Parses an integer, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
