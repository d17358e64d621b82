"""A replay on one rank, in this process, where pdb works: python -m drumbeat.launch.replay.in_process FOLDER"""

from __future__ import annotations

import sys
from bdb import BdbQuit
from pathlib import Path

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.backends.debug import train


def main(folder: str) -> int:
    """Exit code. Who leaves pdb with q has seen enough."""
    try:
        train(JobPlan.require(RunDir(Path(folder)).plan))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BdbQuit:
        print("left before the end of the step")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
