"""Appends to ledgers until it is killed: started by ``test_ledger_kill``, which kills its children.

For each line ``FOLDER SEED`` on stdin it forks a child, names it (``child PID``) and waits for its end (``ended``). The
child opens the ledger and appends; of each entry that ``append`` has returned it says ``HEIGHT HASH``.
"""

import os
import random
import sys
from pathlib import Path

from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger


def say(text: str) -> None:
    """Writes a line at once, or not at all: it is shorter than what a pipe takes whole."""
    os.write(1, f"{text}\n".encode())


def work(folder: Path, seed: int) -> None:
    """Appends entries of all sizes, so that a kill meets openings, short and long writes, syncs and new segments."""
    chance = random.Random(seed)
    key = SigningKey.load(folder.parent / "key.pem")
    ledger = Ledger.open(folder, key, fsync_s=chance.choice([0.0, 0.002, 3600.0]), segment_bytes=500_000)
    while True:
        bodies = [
            {"seed": seed, "text": "x" * int(10 ** chance.uniform(0, 6))}
            for _ in range(chance.choice([1, 1, 3]))
        ]
        for entry in ledger.append_many([("operator", body) for body in bodies]):
            say(f"{entry.height} {entry.hash}")


def main() -> None:
    """Forks a child for each line."""
    for line in sys.stdin:
        folder, seed = line.rsplit(maxsplit=1)
        child = os.fork()
        if not child:
            try:
                work(Path(folder), int(seed))
            except BaseException as error:
                say(f"failed {error!r}")
            os._exit(1)
        say(f"child {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
