"""Decisions a second that the ledger takes in, with and without its syncs, and how fast it is read and verified.

    python benchmarks/ledger.py [--batches 400] [--folder .] [--out benchmarks/results/ledger.json]

Batches of 256 events with their decisions are made beforehand; what is timed is making bodies of them and appending,
by the clock and of the processor alone, which other work on the machine touches less. ``append`` never syncs, ``group
commit`` syncs in the background every 100 ms, ``each synced`` waits for the disk each time. ``fsync`` is the disk of
``--folder``: 4 KiB appended to a file and synced.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import report

from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger, read_entries
from phalanx.service.ledger_bodies import batch_body
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.types import Verdict

_BATCH = 256
_KEPT = 16  # different batches, used in turn


def batch(number: int) -> tuple[list[LiveEvent], list[LiveDecision]]:
    """Events of ordinary size, and decisions by four members."""
    rng = np.random.default_rng(number)
    events, decisions = [], []
    for at in range(_BATCH):
        name, subject = rng.bytes(16).hex(), f"web-17:{number}:{at}"
        attributes = {
            "path": "/usr/bin/python3.11",
            "command": "python3 -m http.server 8080 --bind 127.0.0.1",
            "uid": 1000,
            "bytes": float(rng.random()),
        }
        time_ns = 1_700_000_000_000_000_000 + at
        events.append(LiveEvent(name, time_ns, "web-17", subject, "EXECUTE", "web-17:1", attributes))
        votes = (Verdict.ALERT, Verdict.ALERT, Verdict.ALLOW, None)
        robustness = {"office": float(rng.normal()), "lateral": float(rng.normal())}
        evidence = tuple(rng.bytes(16).hex() for _ in range(3))
        decisions.append(
            LiveDecision(
                name, time_ns, "web-17", subject, Verdict.ALERT, votes, True, float(rng.random()), False, robustness,
                evidence, "ab" * 32,
            )
        )  # fmt: skip
    return events, decisions


def appended(folder: Path, key: SigningKey, batches: int, fsync_s: float) -> dict[str, float]:
    """Times of appending so many batches."""
    made = [batch(number) for number in range(_KEPT)]
    wall = np.empty(batches)
    with Ledger.open(folder, key, fsync_s=fsync_s) as ledger:
        begun, cpu = time.perf_counter(), time.process_time()
        for at in range(batches):
            start = time.perf_counter()
            ledger.append("batch", batch_body(*made[at % _KEPT], f=1, mode="shadow"))
            wall[at] = time.perf_counter() - start
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    size = sum(path.stat().st_size for path in folder.glob("ledger-*.ndjson"))
    return {
        "append_p50_ms": float(np.median(wall)) * 1e3,
        "append_p99_ms": float(np.quantile(wall, 0.99)) * 1e3,
        "entries_per_s": batches / wall_s,
        "decisions_per_s": batches * _BATCH / wall_s,
        "decisions_per_cpu_s": batches * _BATCH / cpu_s,
        "mb_per_s": size / wall_s / 1e6,
        "bytes_per_decision": size / batches / _BATCH,
    }


def passed(work: Callable[[], object], decisions: int) -> dict[str, float]:
    """Decisions a second of one pass over a ledger."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return {"decisions_per_s": decisions / wall_s, "decisions_per_cpu_s": decisions / cpu_s}


def synced(folder: Path, count: int) -> dict[str, float]:
    """How long this disk takes to sync 4 KiB more of a file."""
    times = np.empty(count)
    with (folder / "sync").open("ab", buffering=0) as file:
        for at in range(count):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            times[at] = time.perf_counter() - start
    return {"p50_ms": float(np.median(times)) * 1e3, "p99_ms": float(np.quantile(times, 0.99)) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix=".ledger-", dir=arguments.folder))
    try:
        key = SigningKey.create(folder / "key.pem")
        count = arguments.batches
        found = {
            "fsync of this disk": synced(folder, 400),
            "append": appended(folder / "never", key, count, 3600.0),
            "append, group commit": appended(folder / "group", key, count, 0.1),
            "append, each synced": appended(folder / "each", key, count, 0.0),
        }
        with Ledger.open(folder / "group", key) as ledger:
            members = ledger.members
        where, decisions = folder / "group", count * _BATCH
        verified = verify_ledger(where, members)  # the voting rule's few calls are compiled here
        assert not verified.findings and verified.decisions == decisions
        found["read"] = passed(lambda: sum(1 for _ in read_entries(where)), decisions)
        found["verify"] = passed(lambda: verify_ledger(where, members), decisions)
    finally:
        shutil.rmtree(folder)
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
