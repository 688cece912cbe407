"""Decisions a second into the store, in batches of 256, and how long queries take.

    python benchmarks/store.py [--batches 400] [--postgres URL] [--out benchmarks/results/store.json]

Wall time and this process's own CPU time: the difference is the machine's other load and the disk.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import report

from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.store import Store
from phalanx.types import Verdict

BATCH = 256
PROCESSES = 5_000


def batch_of(height: int) -> tuple[list[LiveEvent], list[LiveDecision], list[Outcome]]:
    """Events as they come: many processes, one decision in fifty above allow."""
    events, decisions, outcomes = [], [], []
    for place in range(BATCH):
        number = height * BATCH + place
        process = (number * 7_919) % PROCESSES
        verdict = Verdict.ALERT if number % 50 == 0 else Verdict.ALLOW
        attributes = {
            "path": f"/srv/data/{number % 997}/file-{number}",
            "pid": 1_000 + process,
            "size": number,
        }
        time_ns = 1_800_000_000_000_000_000 + number * 50_000
        event = LiveEvent(
            f"{number * 2_654_435_761 % 2**64:016x}",
            time_ns,
            f"host-{process % 50}",
            f"p{process}",
            "WRITE",
            "p1",
            attributes,
        )
        events.append(event)
        decisions.append(
            LiveDecision(
                event.id,
                time_ns,
                event.host,
                event.subject,
                verdict,
                (verdict,) * 4,
                True,
                0.25,
                False,
                {"ban": 0.5},
                (event.id,),
                "0123456789abcdef",
            )
        )
        effect = Effect.ALERT if verdict else Effect.NONE
        outcomes.append(Outcome(effect, effect))
    return events, decisions, outcomes


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and own CPU time, in s."""
    begun, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begun, time.process_time() - cpu


def measure(where: str, batches: int) -> dict[str, float]:
    """Inserts batches, then asks."""
    made = [batch_of(height) for height in range(1, batches + 1)]
    walls, cpus = [], []
    with Store.open(where) as store:
        for height, (events, decisions, outcomes) in enumerate(made, 1):
            wall, cpu = timed(lambda given=(height, events, decisions, outcomes): store.insert(*given))
            walls.append(wall)
            cpus.append(cpu)
        event = made[batches // 2][0][3]
        by_id = timed(lambda: store.by_id(event.id))[0]
        of_process = timed(lambda: store.find(host=event.host, subject=event.subject))[0]
        above = timed(lambda: store.find(verdict=Verdict.ALERT))[0]
    count = batches * BATCH
    return {
        "decisions": count,
        "decisions_per_s": count / sum(walls),
        "decisions_per_cpu_s": count / sum(cpus),
        "batch_ms_p50": 1e3 * sorted(walls)[len(walls) // 2],
        "batch_ms_p99": 1e3 * sorted(walls)[int(0.99 * len(walls))],
        "by_id_ms": 1e3 * by_id,
        "of_process_ms": 1e3 * of_process,
        "above_allow_ms": 1e3 * above,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--postgres", help="URL of an empty database")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = {"sqlite": measure(f"{folder}/store.sqlite", options.batches)}
    if options.postgres:
        found["postgresql"] = measure(options.postgres, options.batches)
    report(found, options.out, load)


if __name__ == "__main__":
    main()
