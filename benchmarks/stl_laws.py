"""Laws of robustness and of the streaming monitor, each on many random formulas and traces; both sides exactly equal.

    python benchmarks/stl_laws.py [--cases 100000] [--law "windows of windows"] [--out benchmarks/results/stl_laws.json]

The laws are those of ``tests/stl/laws.py``. ``finite`` counts the compared values that are finite. A counterexample is
printed with its seed, its formula and its trace; ``--law`` (may be repeated) takes only some of the laws.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from machine import report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from stl.laws import LAWS, broken, drawn


def check(name: str, cases: int) -> dict[str, float]:
    """What came of the cases with seeds from 0 on."""
    different, values, finite, begun = 0, 0, 0, time.process_time()
    for seed in range(cases):
        case = drawn(name, seed)
        values += case.left.size
        finite += int(np.isfinite(case.left).sum())
        if told := broken(name, seed, case):
            different += 1
            print(told, flush=True)
    return {
        "cases": cases,
        "different": different,
        "values": values,
        "finite": finite,
        "cpu_s": time.process_time() - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--law", action="append", choices=LAWS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {}
    for name in arguments.law or LAWS:
        found[name] = check(name, arguments.cases)
        print(f"{name}: {found[name]['different']} of {arguments.cases} differ", flush=True)
    report(found, arguments.out, load_before)
    if any(line["different"] for line in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
