"""drumbeat sweep CONFIG KEY=A,B ...: trains a config, or forks of a run, with many values, as one thing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from drumbeat.launch.commands.arguments import add_no_snapshot, add_runs, add_trust, integer, node_count

if TYPE_CHECKING:
    from drumbeat.launch.sweeps.resolve import Planned

HELP = "train a config with many values"

USAGE = """%(prog)s CONFIG KEY=A,B ... [options]
       %(prog)s RUN --at STEP KEY=A,B ... [options]
       %(prog)s --extend SWEEP [KEY=C,D ...] [--sample N]"""

EPILOG = """values:
  KEY=1e-3,3e-4              these values
  KEY=0..4, KEY=0..10..5     from the first to the last, with a step
  KEY=linspace(0,1,5)        5 values with equal distances
  KEY=geomspace(1e-4,1,5)    5 values with equal ratios
  KEY=loguniform(1e-5,1e-1)  drawn N times, with --sample N; or uniform(A,B),
                             randint(A,B), choice(A,B,C)
  KEY=1e-3                   the same in all trials

examples:
  %(prog)s resnet50_xray_demo seed=0..4 --procs 1 --max-parallel 2
  %(prog)s resnet50_xray 'batch_size=choice(128,256)' seed=0..4 \\
    --sample 2 --slurm --gpus 8 --max-parallel 4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Train a config with every combination of the given values. Each trial is a run\n"
                          "in the sweep's folder; status, report, stop, resume and cancel take the name of\n"
                          "the sweep.")
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", nargs="*", metavar="CONFIG", help="a config file or the name of a shipped config, "
                        "or with --at a run, followed by values to try, KEY=A,B")
    size = parser.add_argument_group("trials")
    size.add_argument("--sample", type=integer, metavar="N", help="the number of draws from the distributions")
    size.add_argument("--draw-seed", type=integer, metavar="S", default=0, help="the seed of the draws (default: 0)")
    size.add_argument("--at", metavar="STEP", help="each trial is a fork of a run at this step, or percentage of its "
                      "steps: 600, 60%%")
    size.add_argument("--extend", metavar="SWEEP", help="add values or draws to a sweep")
    size.add_argument("--asha", metavar="METRIC", help="train only the best to their ends, by the "
                      "monitored metric METRIC (successive halving)")
    size.add_argument("--sampler", metavar="NAME", help="a sampler of optuna that chooses the values of N trials: tpe, "
                      "gp, cmaes, qmc, random, or the address of a class")
    each = parser.add_argument_group("processes of each trial")
    each.add_argument("--gpus", type=integer, metavar="N", help="ranks on each node, one GPU each (default: all; "
                      "required with --slurm)")
    each.add_argument("--procs", type=integer, metavar="N", help="ranks on each node, on the CPU")
    each.add_argument("--nodes", type=node_count, metavar="K", help="nodes, or a range of them (default: 1)")
    place = parser.add_argument_group("where to run (default: on this machine, in the background)")
    place.add_argument("--slurm", action="store_true", help="submit to SLURM, as job arrays")
    place.add_argument("--profile", metavar="SITE", help="cluster profile: configs/clusters/SITE.yaml")
    place.add_argument("--max-parallel", type=integer, metavar="N", help="trials that run at the same time at most "
                       "(default: as many as have GPUs or cores of their own)")
    what = parser.add_argument_group("other options")
    what.add_argument("--name", help="the folder of the sweep: runs/NAME (default: the config's name and -sweep)")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and start nothing")
    what.add_argument("--no-preflight", action="store_true", help="do not check model, data and cluster first")
    what.add_argument("--new-code", action="store_true", help="with --at: use the code as it is now, not that run's "
                      "copy")
    add_runs(what)
    add_trust(what)
    add_no_snapshot(what)
    parser.set_defaults(debug=False, here=False, detach=False, resume=None, take_over=False)


def resolve(args: argparse.Namespace) -> Planned:
    """What is to be started. Raises a `UserError`."""
    from drumbeat.launch.runs.trust import check_trusted
    from drumbeat.launch.sweeps.find import require_sweep
    from drumbeat.launch.sweeps.resolve import resolve_extension, resolve_sweep

    if args.extend is None:
        return resolve_sweep(args)
    folder = require_sweep(args.extend, Path(args.runs))
    check_trusted(folder, args)
    return resolve_extension(args, folder, folder.read())


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.sweeps.start import start_planned

    return start_planned(resolve(args), dry_run=args.dry_run)
