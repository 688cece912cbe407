r"""Faults on purpose, in networks of four nodes under load, and what must hold after each of them.

    python benchmarks/faults.py --faults 1000 --seed 0 [--kinds "full disk" "torn ledger"] \
        [--out benchmarks/results/faults.json]

Needs the consensus engine (``scripts/build-cometbft``) and Linux; with ``unshare`` and the right to make namespaces
(root, or user namespaces) each node is in a network of its own, with its files on a disk of its own in memory, else
faults of links and disks are left out and it says so. The seed gives the schedule; what the faults meet in the
network's course is another each time. After every fault: the ledgers of all nodes agree, one app hash a height, what
was acknowledged is there once and as it was told, the enforcer acted on each height once and in order. At the end of
each network all ledgers verify, every decision follows from its signed votes, every block is the same on every
engine. The first thing that does not hold ends the run with status 1; the network's files stay.
Recovery is from the end of a fault (for a kill: the kill) until its nodes carried out a block decided after it.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from fault_injection.campaign import Campaign
from fault_injection.invariants import BrokenError
from fault_injection.isolation import run_isolated, why_not
from fault_injection.links import Links
from fault_injection.schedule import NEED_SPACES, WEIGHTS, schedule
from machine import report


def main() -> int:
    """Runs the faults and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="leave out so many: goes on with a schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(WEIGHTS), default=list(WEIGHTS), metavar="KIND")
    parser.add_argument("--a-network", type=int, default=100, help="faults until a network begins anew")
    parser.add_argument("--folder", type=Path, help="for the networks' files; a temporary one")
    parser.add_argument("--no-namespaces", action="store_true", help="kills, pauses and torn files alone")
    parser.add_argument(
        "--ahead", type=int, default=0, help="-20..19: below 0, the nodes' processes come before other work"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    lacking = "not asked for" if given.no_namespaces else None if _inside() else why_not()
    if lacking is None:
        status = run_isolated()
        if status is not None:
            return status
    else:
        given.kinds = [kind for kind in given.kinds if kind not in NEED_SPACES]
        print(f"without faults of links and disks: namespaces {lacking}", file=sys.stderr)
    load_before = os.getloadavg()[0]
    folder = given.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder, given.seed, Links(4) if lacking is None else None, given.ahead)
    began = time.monotonic()

    def tell() -> None:
        figures = campaign.figures()
        hours = (time.monotonic() - began) / 3600
        figures["totals"] |= {"seed": given.seed, "hours": hours, "load_after": os.getloadavg()[0]}
        report(figures, given.out, load_before)

    try:
        campaign.run(schedule(given.seed, given.faults, given.kinds)[given.first :], given.a_network, tell)
    except BrokenError:
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    shutil.rmtree(folder)
    return 0


def _inside() -> bool:
    return bool(os.environ.get("PHALANX_FAULTS_INSIDE"))


if __name__ == "__main__":
    sys.exit(main())
