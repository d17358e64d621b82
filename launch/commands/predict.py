"""drumbeat predict RUN GIVEN ...: inference on new images or texts, as a table and a sheet."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_checkpoint, add_new_code, add_run

HELP = "run inference on new images or texts"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("given", nargs="+", metavar="GIVEN", help="images, folders of them, tables with a column "
                        "`file`; for a model of texts, tables of them, or .txt with one a line")
    parser.add_argument("--out", metavar="FILE", help="where to write the table (default: predictions.csv)")
    parser.add_argument("--sheet", metavar="FILE", help="where to draw images (default: beside the table)")
    add_checkpoint(parser)
    add_new_code(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.preconditions import check_inputs
    from drumbeat.launch.plan.job import Machine
    from drumbeat.launch.runs.find import trained_run
    from drumbeat.launch.runs.programs import on_run

    found, config = trained_run(args.run, Path(args.runs), args.checkpoint)
    check_inputs(list(map(Path, args.given)), config)
    device = "cuda" if Machine.here().gpus else "cpu"
    chosen = [word for option in ("checkpoint", "out", "sheet") if (value := getattr(args, option))
              for word in (f"--{option}", value)]
    return on_run("drumbeat.trainers.commands.predict", found, *args.given, *chosen, "--device", device,
                  new_code=args.new_code)
