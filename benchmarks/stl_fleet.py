"""Entity-events a second of a fleet's monitors, beside one monitor alone, over windows of all lengths.

    python benchmarks/stl_fleet.py [--entities 4096] [--calls 2000] [--out benchmarks/results/stl_fleet.json]

``lockstep`` brings a sample of every entity with each call, ``batch`` one of 256 random entities each, ``monitor`` is
one stream, event by event. Times are of single calls, by the clock and of the processor alone, which other work on the
machine touches less. Memory has been touched before they are taken.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import report

from phalanx.stl import Monitor
from phalanx.stl.fleet import Fleet

SPECS = {
    **{f"G[0,{width}] x<100": f"always[0,{width}] x < 100" for width in (10, 100, 1000, 10_000, 100_000)},
    "x>0 U[0,200] y>0": "x > 0 until[0,200] y > 0",
    "sum(x,1000)<5": "sum(x, 1000) < 5",
    "G[0,60](x>1->F[0,5]y>0)": "always[0,60] (x > 1 -> eventually[0,5] y > 0)",
}
_BATCH = 256
_KEPT = 64  # different values, used in turn


def measured(call: Callable[[int], object], calls: int, events: int) -> dict[str, float]:
    """Times of calls that take so many events in each."""
    wall, cpu = np.empty(calls), np.empty(calls)
    for at in range(calls):
        begun, start = time.process_time(), time.perf_counter()
        call(at)
        wall[at], cpu[at] = time.perf_counter() - start, time.process_time() - begun
    return {
        "wall_p50_us": float(np.median(wall)) * 1e6,
        "wall_p99_us": float(np.quantile(wall, 0.99)) * 1e6,
        "cpu_p50_us": float(np.median(cpu)) * 1e6,
        "cpu_p99_us": float(np.quantile(cpu, 0.99)) * 1e6,
        "cpu_worst_us": float(cpu.max()) * 1e6,
        "million_events_per_cpu_s": events / float(cpu.mean()) / 1e6,
    }


def one_spec(text: str, entities: int, calls: int) -> dict[str, dict[str, float]]:
    """Lockstep, micro-batches and one monitor alone."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(50, 30, (2, _KEPT, entities))
    found = {}
    fleet = Fleet(text, entities)
    for at in range(_KEPT):
        fleet.update({"x": x[at], "y": y[at]})
    found["lockstep"] = measured(
        lambda at: fleet.update({"x": x[at % _KEPT], "y": y[at % _KEPT]}), calls, entities
    )
    found["lockstep"]["bytes_per_entity"] = fleet.bytes_per_entity
    size = min(_BATCH, entities)
    rows = [rng.permutation(entities)[:size] for _ in range(_KEPT)]
    batch = [{"x": x[at, :size], "y": y[at, :size]} for at in range(_KEPT)]
    found["batch"] = measured(lambda at: fleet.update(batch[at % _KEPT], rows[at % _KEPT]), calls, size)
    del fleet
    monitor, samples = (
        Monitor(text),
        [{"x": a, "y": b} for a, b in zip(x[0].tolist(), y[0].tolist(), strict=True)],
    )
    found["monitor"] = measured(lambda at: monitor.update(samples[at % entities]), 10 * calls, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entities", type=int, default=4096)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {
        f"{name} {kind}": line
        for name, text in SPECS.items()
        for kind, line in one_spec(text, arguments.entities, arguments.calls).items()
    }
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
