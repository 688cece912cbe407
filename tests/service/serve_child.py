"""``phalanx serve`` as a process of its own, with the tests' small model in the place of a run's.

python serve_child.py ARGUMENTS OF SERVE
"""

import sys

from phalanx.cli import main


def run() -> int:
    """Serves, and returns the exit code."""
    from service.models import model

    import phalanx.service.model

    phalanx.service.model.load_model = lambda run, **given: model(threshold=0.3)
    return main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(run())
