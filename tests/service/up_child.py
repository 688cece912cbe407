"""``phalanx up`` as a process of its own, with the tests' small committee in the place of a run's.

python up_child.py ARGUMENTS OF UP
"""

import sys

from phalanx.cli import main


def run() -> int:
    """Serves, and returns the exit code."""
    from service.models import model

    import phalanx.cli_up
    import phalanx.service.model

    phalanx.service.model.load_model = lambda run, **given: model(threshold=0.5)
    phalanx.cli_up._MEMBER = "consensus.small_members:honest"
    phalanx.cli_up.Up._members = lambda self, run: 4  # type: ignore[method-assign]
    return main(["up", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(run())
