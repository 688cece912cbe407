"""How fast live decisions are: the engine alone, the desk with its ledger, and HTTP, single events and batches.

    python benchmarks/serving.py [--events 20000] [--run RUN] [--folder .] [--out benchmarks/results/serving.json]

The committee is that of a run, or has the size that `phalanx train` gives it and random parameters, which cost as much
as learned ones; events are drawn from its vocabulary, of 512 processes on 8 hosts. With a run, and the consensus engine
(``scripts/build-cometbft``), the same over HTTP once more with every member as a node (`phalanx up`). Compilation is
left out. Times are by the clock, and of the processor alone, which other work on the machine touches less; those of
HTTP are a client's beside the server, of the standard library (httpx takes longer for a request than the server).
"""

import argparse
import contextlib
import gc
import hashlib
import http.client
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jax
import numpy as np
from machine import report

from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import deployed
from phalanx.runtime.learner import init_committee, learner_config
from phalanx.runtime.one_thread import use_one_thread
from phalanx.runtime.task import build_task
from phalanx.service.clock import SystemClock
from phalanx.service.desk import Desk
from phalanx.service.engine import Engine
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import event_to_json
from phalanx.service.live import watchable
from phalanx.service.model import Model, load_model
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveEvent
from phalanx.service.serve_config import ServeConfig
from phalanx.service.serving import serve

_BATCH = 256


def model() -> Model:
    """An untrained committee of the default size."""
    config = RunConfig()
    task = build_task(config)
    spec = task.test.watch.spec
    committee = deployed(init_committee(spec, learner_config(config), jax.random.key(0)))
    specs = watchable(committee, ())
    return Model(committee, 0.9, config.network.memory_size, task.encoder, specs, "benchmark")


def events(made: Model, count: int, prefix: str, seed: int = 0) -> list[LiveEvent]:
    """Events of the encoder's vocabulary."""
    rng = np.random.default_rng(seed)
    found = []
    start_ns = time.time_ns() - 10**12
    for i in range(count):
        process = int(rng.integers(512))
        attributes: dict[str, Any] = {
            column.source: str(column.values[rng.integers(len(column.values))])
            for column in made.encoder.categories
        }
        attributes |= {number.name: float(rng.lognormal(3.0, 2.0)) for number in made.encoder.numbers}
        kind = str(attributes.pop("kind", "READ"))
        host, name = f"host-{process % 8}", hashlib.sha256(f"{prefix}{i}".encode()).hexdigest()[:32]
        found.append(
            LiveEvent(name, start_ns + i * 10**6, host, f"{host}:{process}", kind, f"{host}:1", attributes)
        )
    return found


def timed(
    step: Callable[[Sequence[LiveEvent]], object], items: Sequence[LiveEvent], size: int
) -> dict[str, float]:
    """Times of one part of so many events after the other."""
    parts = [items[i : i + size] for i in range(0, len(items) - size + 1, size)]
    for part in parts[:3]:
        step(part)
    parts = parts[3:]
    times = np.empty(len(parts))
    begun, cpu = time.perf_counter(), time.process_time()
    for at, part in enumerate(parts):
        start = time.perf_counter()
        step(part)
        times[at] = time.perf_counter() - start
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return _figures(times, len(parts) * size, wall_s, cpu_s)


def _figures(times: np.ndarray, decisions: int, wall_s: float, cpu_s: float) -> dict[str, float]:
    return {
        "p50_ms": float(np.median(times)) * 1e3,
        "p99_ms": float(np.quantile(times, 0.99)) * 1e3,
        "decisions_per_s": decisions / wall_s,
        "decisions_per_cpu_s": decisions / cpu_s,
    }


def over_http(folder: Path, made: Model, count: int, size: int, clients: int) -> dict[str, float]:
    """A client's times; the processor's are the server's alone."""
    about = json.loads((folder / "serving.json").read_text())
    token = (folder / "tokens" / "ingest").read_text().strip()
    forms = []
    for event in events(made, count, f"http {size} {clients} {count}"):
        form = event_to_json(event)
        forms.append({**form.pop("attributes"), **form})
    bodies = [json.dumps(forms[i : i + size]).encode() for i in range(0, count, size)]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    where = urlsplit(about["url"]).netloc

    def client(own: Sequence[bytes]) -> list[float]:
        times: list[float] = []
        with contextlib.closing(http.client.HTTPConnection(where, timeout=600)) as connection:
            for body in own:
                start = time.perf_counter()
                while posted(connection, body, headers) == 429:
                    time.sleep(0.05)
                times.append(time.perf_counter() - start)
        return times

    begun, cpu = time.perf_counter(), _cpu_s(about["pid"])
    with ThreadPoolExecutor(clients) as pool:
        times = [
            each for own in pool.map(client, [bodies[i::clients] for i in range(clients)]) for each in own
        ]
    return _figures(np.array(times), count, time.perf_counter() - begun, _cpu_s(about["pid"]) - cpu)


def posted(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> int:
    """The status of an answer that was read."""
    connection.request("POST", "/v1/events", body, headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status in (200, 429), body
    return answer.status


def measured_over_http(
    folder: Path, made: Model, count: int, alive: Callable[[], bool], what: str
) -> dict[str, dict[str, float]]:
    """Waits for a server, and measures it: single events, and batches, of one client and of several."""
    while not (folder / "serving.json").exists():
        assert alive()
        time.sleep(0.2)
    time.sleep(0.5)
    found = {}
    over_http(folder, made, 3 * _BATCH, _BATCH, 1)  # to warm up
    for size, clients in ((1, 1), (1, 16), (_BATCH, 1), (_BATCH, 4)):
        name = f"{what}, {'one event' if size == 1 else f'{size} events'} a request, {clients} clients"
        found[name] = over_http(folder, made, count // 10 if size == 1 else count, size, clients)
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served(folder: Path, run: Path | None) -> None:
    """Serves until it is ended."""
    serve(ServeConfig(folder, port=0, batch=_BATCH), lambda: model() if run is None else load_model(run))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--events", type=int, default=20_000, help="of each setting; a tenth of them one by one"
    )
    parser.add_argument("--run", type=Path, help="a trained run")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_one_thread()  # as ``serve`` does
    load_before, count = os.getloadavg()[0], arguments.events
    folder = Path(tempfile.mkdtemp(prefix=".serving-", dir=arguments.folder))
    found: dict[str, dict[str, float]] = {}
    try:
        made = model() if arguments.run is None else load_model(arguments.run)
        engine = Engine(made)
        engine.warm()
        found["engine, one event"] = timed(engine.decide, events(made, count // 10, "e1"), 1)
        found["engine, 256 events"] = timed(engine.decide, events(made, count, "e"), _BATCH)
        with Ledger.open(folder / "ledger", SigningKey.create(folder / "key.pem")) as ledger:
            desk = Desk(folder, ledger, folder / "ledger", made, SafetyPolicy(), SystemClock())
            desk.engine.warm()
            gc.freeze()  # as ``serve`` does
            found["desk and ledger, one event"] = timed(desk.decide, events(made, count // 10, "d1"), 1)
            found["desk and ledger, 256 events"] = timed(desk.decide, events(made, count, "d"), _BATCH)
        server = multiprocessing.get_context("spawn").Process(
            target=served, args=(folder / "live", arguments.run)
        )
        server.start()
        found |= measured_over_http(folder / "live", made, count, server.is_alive, "HTTP")
        server.terminate()
        server.join()
        if arguments.run is not None:
            network = folder / "n"
            words = ["up", str(arguments.run), "--folder", str(network), "--port", "0"]
            up = subprocess.Popen([sys.executable, "-m", "phalanx", *words])
            found |= measured_over_http(network / "gateway", made, count, lambda: up.poll() is None, "up")
            up.terminate()
            up.wait()
    finally:
        shutil.rmtree(folder)
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
