"""drumbeat predict RUN INPUT ...: runs inference on new images or texts, and writes a table and an image."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_checkpoint, add_new_code, add_run, add_trust

HELP = "run inference on new images or texts"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders of images, tables with a "
                        "column `file`; for a text model, tables of texts or .txt files with one text a line")
    parser.add_argument("--out", metavar="FILE", help="the table to write (default: predictions.csv)")
    parser.add_argument("--sheet", metavar="FILE", help="the image of samples to write (default: beside the table)")
    add_checkpoint(parser)
    add_new_code(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.preconditions import check_inputs
    from drumbeat.launch.plan.job import Machine
    from drumbeat.launch.runs.find import run_with_checkpoint
    from drumbeat.launch.runs.programs import run_on_run
    from drumbeat.launch.runs.trust import check_trusted

    found, config = run_with_checkpoint(args.run, Path(args.runs), args.checkpoint)
    check_trusted(found, args)
    check_inputs(list(map(Path, args.inputs)), config)
    device = "cuda" if Machine.here().gpus else "cpu"
    options = [word for option in ("checkpoint", "out", "sheet") if (value := getattr(args, option))
              for word in (f"--{option}", value)]
    return run_on_run("drumbeat.trainers.commands.predict", found, *args.inputs, *options, "--device", device,
                  new_code=args.new_code)
