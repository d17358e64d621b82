"""Runs all tests marked `gpu` (`make test-gpu`); without a GPU, prints one line and exits with code 2."""

from __future__ import annotations

import os
import sys

from tests.gpu.device import no_device

if __name__ == "__main__":
    if reason := no_device():
        print(f"error: no GPU to test on: {reason}", file=sys.stderr)
        sys.exit(2)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-m", "gpu", *sys.argv[1:]])
