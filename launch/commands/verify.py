"""drumbeat verify RUN: proves which samples a run has used.

The proof is this Drumbeat's, never that of the run's copy. It executes code of the run only if the order of samples
depends on the training set (data.sampling, data.bucket_batches).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run, add_trust

HELP = "prove which samples a run has used"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.load import read
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import run_with_own_drumbeat
    from drumbeat.launch.runs.trust import check_trusted

    found = find_run(args.run, Path(args.runs))
    data = read(found.config).data
    needs_set = bool(data.sampling) or data.bucket_batches is not None
    if needs_set:
        check_trusted(found, args)
    return run_with_own_drumbeat("drumbeat.trainers.commands.verify", found, *["--builds-set"] * needs_set,
                                 run_code=needs_set)
