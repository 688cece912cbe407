"""Robustness equal to RTAMT 0.4.10's (signed zeros aside), offline in discrete time, over random formulas and traces.

    python benchmarks/stl_agreement.py [--pairs 1000000] [--processes 2] [--out benchmarks/results/stl_agreement.json]

Pairs are spread evenly over the strata of ``tests/stl/formulas.py``. A pair in which a part of the formula is NaN to
RTAMT (infinities apart) is counted and not compared. A mismatch is printed with its seed.
"""

import argparse
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from machine import report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from stl.formulas import STRATA, formula, trace
from stl.rtamt_oracle import rtamt_robustness

from phalanx.stl import robustness

_CHUNK = 1000


def compare(job: tuple[str, int, int]) -> tuple[str, int, int, list[str]]:
    """Compares the pairs of one stratum with seeds from ``first`` on: pairs equal, undefined, and what differs."""
    stratum, first, count = job
    equal, undefined, wrong = 0, 0, []
    for seed in range(first, first + count):
        rng = random.Random(f"{stratum} {seed}")
        text, signals = formula(rng, rng.randint(0, 5), STRATA[stratum]), trace(rng)
        expected = rtamt_robustness(text, signals)
        if expected is None:
            undefined += 1
        elif np.array_equal(robustness(text, signals), expected):
            equal += 1
        else:
            wrong.append(f"{stratum} {seed}: {text}")
    return stratum, equal, undefined, wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    each = -(-arguments.pairs // len(STRATA))
    jobs = [(name, first, min(_CHUNK, each - first)) for name in STRATA for first in range(0, each, _CHUNK)]
    found = {name: {"equal": 0, "undefined": 0, "different": 0} for name in STRATA}
    begun = time.perf_counter()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for name, equal, undefined, wrong in pool.map(compare, jobs):
            found[name]["equal"] += equal
            found[name]["undefined"] += undefined
            found[name]["different"] += len(wrong)
            for line in wrong:
                print(line, flush=True)
    report({**found, "time": {"seconds": time.perf_counter() - begun}}, arguments.out, load_before)
    if any(counts["different"] for counts in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
