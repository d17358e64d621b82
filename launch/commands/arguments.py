"""Arguments that several commands have."""

from __future__ import annotations

import argparse


def add_run(parser: argparse.ArgumentParser, *, runs: bool = True) -> None:
    """Which run is meant."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, its id or a unique prefix of it, or a name")
    if runs:
        add_runs(parser)


def add_runs(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The folder of all runs."""
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")


def add_config(parser: argparse.ArgumentParser, options: str, changes: str = "") -> None:
    """Which config is meant, and changes to it."""
    parser.usage = f"%(prog)s CONFIG [KEY=VALUE ...]{options}"
    parser.add_argument("words", nargs="+", metavar="CONFIG", help="a config file, or the name of a shipped one; then "
                        f"changes to it, KEY=VALUE{': ' * bool(changes)}{changes}")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint of a run."""
    parser.add_argument("--checkpoint", metavar="WHICH", help="best, last or a step (default: best; last where there "
                        "is no validation set)")


def add_new_code(parser: argparse.ArgumentParser) -> None:
    """With which code."""
    parser.add_argument("--new-code", action="store_true", help="with the code as it is now, not with the run's copy")


def add_start_options(parser: argparse.ArgumentParser, ranks: str, nodes: str) -> argparse._ArgumentGroup:
    """The options of all commands that start a run; `ranks` and `nodes` say how many there are if none are asked for.
    Returns the group that others belong to."""
    size = parser.add_argument_group("how many processes")
    size.add_argument("--gpus", type=integer, metavar="N", help=f"ranks on each node, a GPU each (default: {ranks})")
    size.add_argument("--procs", type=integer, metavar="N", help="ranks on each node, on the CPU")
    size.add_argument("--nodes", type=integer, metavar="K", help=f"nodes of a cluster (default: {nodes})")
    place = parser.add_argument_group("where (default: on this machine, attached to this terminal)")
    place.add_argument("--detach", action="store_true", help="return at once, and leave it running")
    place.add_argument("--debug", action="store_true", help="in this process: one rank, breakpoints work")
    place.add_argument("--slurm", action="store_true", help="on a cluster: submit to SLURM and return")
    place.add_argument("--here", action="store_true", help="in the allocation around this shell (salloc), attached")
    place.add_argument("--profile", metavar="SITE", help="which cluster: configs/clusters/SITE.yaml")
    what = parser.add_argument_group("how")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and do nothing")
    what.add_argument("--no-preflight", action="store_true", help="start without looking at model, data and cluster")
    add_runs(what)
    return what


def add_no_snapshot(group: argparse._ArgumentGroup) -> None:
    """Without a copy of the code."""
    group.add_argument("--no-snapshot", action="store_true", help="run the code where it is, not a copy of it")


def integer(text: str) -> int:
    """A number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
