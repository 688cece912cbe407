r"""How long a committee of nodes on this machine takes to decide, with all of them and with one killed.

    python benchmarks/consensus.py [--nodes 4] [--batch 256] [--batches 60] [--memory /dev/shm] [--run RUN] \
        [--out benchmarks/results/consensus.json]

Needs the consensus engine (``scripts/build-cometbft``). All nodes, the gateway and this program share the machine's
cores. The latency is from submitting one batch to f + 1 equal signed replies, one batch at a time; the decisions a
second are with several on their way. Times of the processor are those of all nodes together, a batch: divided by the
cores, they are what the clock can at best come down to. ``fsync`` is the disk of ``--folder``: 4 KiB appended and
synced. Members vote by a hash of the event: what is timed is the network, not a policy; with ``--run`` once more with
the members of a trained committee.
"""

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from machine import report

from phalanx.service.consensus.network import Network, create_network
from phalanx.service.records import LiveDecision, LiveEvent

_MEMBER = "phalanx.service.consensus.committee_member:committee_member"
_TICK_MS = 1000.0 / os.sysconf("SC_CLK_TCK")


def events(batch: int, count: int) -> list[LiveEvent]:
    """Events of ordinary size."""
    return [
        LiveEvent(
            f"event-{batch:06d}-{i:04d}",
            1_700_000_000_000_000_000 + batch * 10**6 + i,
            f"web-{i % 16}",
            f"web-{i % 16}:{i % 97}",
            "EXECUTE",
            f"web-{i % 16}:1",
            {
                "path": "/usr/bin/python3.11",
                "command": "python3 -m http.server 8080 --bind 127.0.0.1",
                "uid": 1000,
                "bytes": i * 0.25,
            },
        )
        for i in range(count)
    ]


def fsync_times(folder: Path, count: int = 200) -> dict[str, float]:
    """Of the disk."""
    took = []
    with open(folder / "fsync", "wb") as file:
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return quantiles(took)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "max_ms": 1e3 * max(seconds), "count": len(seconds)}


def processor_ms(network: Network) -> np.ndarray:
    """Time of the processor that the applications and the engines have taken."""
    total = np.zeros(2)
    for node in network.nodes:
        for which, pid in enumerate(node.pids):
            if pid is not None:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                total[which] += (int(fields[11]) + int(fields[12])) * _TICK_MS
    return total


def measured(network: Network, first: int, batches: int, batch: int, at_once: int) -> dict[str, float]:
    """Latency and throughput of so many batches; ``first`` numbers them, for no two may be the same."""
    height = chain_height(network)
    before = processor_ms(network)
    latencies = []
    for number in range(batches):
        happened = events(first + number, batch)
        began = time.perf_counter()
        network.decisions(happened, 60)
        latencies.append(time.perf_counter() - began)
    spent, heights = processor_ms(network) - before, chain_height(network) - height
    waiting: deque[Future[tuple[LiveDecision, ...]]] = deque()
    many = 2 * batches
    began = time.perf_counter()
    for number in range(many):
        waiting.append(network.submit(events(first + batches + number, batch)))
        if len(waiting) == at_once:
            waiting.popleft().result(60)
    for answer in waiting:
        answer.result(60)
    took = time.perf_counter() - began
    return {
        **{f"latency_{name}": value for name, value in quantiles(latencies).items()},
        "heights_per_batch": heights / batches,
        "applications_cpu_ms_per_batch": float(spent[0]) / batches,
        "engines_cpu_ms_per_batch": float(spent[1]) / batches,
        "decisions_per_s": many * batch / took,
        "batches_at_once": at_once,
    }


def chain_height(network: Network) -> int:
    """Of the node that is farthest."""
    return max(status["height"] for status in network.status().values() if status)


def recovery(network: Network, place: int) -> float:
    """Seconds from starting a killed node again until it takes part and has the others' ledger."""
    wanted = max(status["ledger"] for status in network.status().values() if status)
    name = network.chain.members[place].name
    began = time.perf_counter()
    network.nodes[place].start()
    while True:
        told = network.status()[name]
        if told is not None and told["ledger"] >= wanted:
            break
        time.sleep(0.02)
    network.wait(network.chain.n)
    return time.perf_counter() - began


def in_folder(
    where: Path, given: argparse.Namespace, name: str, member: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """All figures of a network whose nodes keep their files below a folder.

    Args:
        where: that folder.
        given: settings.
        name: of the figures.
        member: what ``create_network`` is told of the members, where they are none that drill.
    """
    folder = Path(tempfile.mkdtemp(prefix=".consensus-", dir=where))
    found = {f"{name}: fsync": fsync_times(folder)}
    try:
        create_network(folder / "n", given.nodes, **(member or {}))
        began = time.perf_counter()
        with Network(folder / "n") as network:
            network.wait(given.nodes)
            found[f"{name}: start"] = {"seconds": time.perf_counter() - began}
            measured(network, 0, 5, given.batch, given.at_once)  # to warm up
            arguments = given.batches, given.batch, given.at_once
            found[f"{name}: all nodes"] = measured(network, 10**5, *arguments)
            for place in range(network.chain.f):
                network.nodes[-1 - place].stop(signal.SIGKILL)
            height = chain_height(network)
            found[f"{name}: {network.chain.f} killed"] = measured(network, 2 * 10**5, *arguments)
            missed = chain_height(network) - height
            seconds = recovery(network, given.nodes - 1)
            found[f"{name}: a killed node comes back"] = {"seconds": seconds, "heights_missed": missed}
    finally:
        shutil.rmtree(folder)
    return found


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument(
        "--memory", type=Path, help="a folder in memory, such as /dev/shm: once more without a disk"
    )
    parser.add_argument("--run", type=Path, help="a trained run with as many members")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    load_before = os.getloadavg()[0]
    found = in_folder(given.folder, given, "disk")
    if given.memory is not None:
        found |= in_folder(given.memory, given, "memory")
    if given.run is not None:
        options = {"run": str(given.run.resolve()), "batch": given.batch}
        found |= in_folder(given.folder, given, "committee", {"member": _MEMBER, "options": options})
    found["settings"] = {"nodes": given.nodes, "events_per_batch": given.batch}
    report(found, given.out, load_before)


if __name__ == "__main__":
    main()
