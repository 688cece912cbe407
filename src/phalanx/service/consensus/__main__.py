"""``python -m phalanx.service.consensus FOLDER``: one node's application process."""

import sys

from phalanx.service.consensus.node import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
