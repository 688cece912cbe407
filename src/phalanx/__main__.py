"""``python -m phalanx``: the same as the command ``phalanx``."""

import sys

from phalanx.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
