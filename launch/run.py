"""python launch/run.py CONFIG [KEY=VALUE ...]: trains what a config describes, on this machine or on a cluster.

The same as `drumbeat run` (`drumbeat.launch.commands.run`), from a clone that is not installed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # Python puts launch/ first on the path; the folder of `drumbeat` belongs there
    sys.path[:0 if sys.flags.safe_path else 1] = [str(Path(__file__).resolve().parent.parent / "src")]
    from drumbeat.__main__ import main

    sys.exit(main(["run", *sys.argv[1:]], program="python launch/run.py"))
