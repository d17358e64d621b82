"""Where `drumbeat` begins: Ctrl-C ends it quietly from the first moment on, while modules are still being imported."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None, program: str = "drumbeat run") -> int:
    """As `drumbeat.launch.commands.main.main`."""
    try:
        from drumbeat.launch.commands import main as commands

        return commands.main(argv, program)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    if not sys.flags.safe_path:  # `python -m` has put the current folder first, ahead of Python's own modules
        del sys.path[0]
    sys.exit(main())
