"""`python -m edgeseg` is the command `edgeseg`."""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> int:
    """Run the command line; it stands in `edgeseg.apps`, which the device side does not import."""
    return int(import_module("edgeseg.apps.cli").main())


if __name__ == "__main__":
    sys.exit(main())
