"""Real servers in processes of their own, clients that load them, and what their ledgers hold."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from service.models import many

from phalanx.service.ledger import read_entries
from phalanx.service.ledger_bodies import counted, decisions_of, event_to_json, events_of

__all__ = ["PATIENCE_S", "Load", "Server", "batches", "decided", "serving"]

TESTS = Path(__file__).resolve().parent.parent
PATIENCE_S = 300.0


@dataclass
class Server:
    """A server, and who may ask it."""

    process: "subprocess.Popen[str]"
    folder: Path
    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def client(self, scope: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S)


@contextmanager
def serving(folder: Path, *flags: str, child: str = "serve_child.py", gateway: str = "") -> Iterator[Server]:
    """A server over a folder, until the test ends.

    Args:
        folder: of the service, or of the network.
        flags: further ones.
        child: the program, in this folder.
        gateway: folder of the service in that of the network.
    """
    command = [
        *(sys.executable, str(TESTS / "service" / child), "runs/none", "--port", "0"),
        *("--folder", str(folder), "--slots", "64", "--batch", "16", *flags),
    ]
    folder = folder / gateway
    path = f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"
    settings = {
        "PYTHONPATH": path,
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    )
    server = Server(process, folder)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            server.errors.append(line)
            if line.startswith("phalanx: serving "):
                break
        else:
            raise AssertionError("".join(server.errors))
        server.url = json.loads((folder / "serving.json").read_text())["url"]
        server.tokens = {path.name: path.read_text().strip() for path in (folder / "tokens").iterdir()}
        drain = threading.Thread(target=lambda: server.errors.extend(process.stderr or ()), daemon=True)
        drain.start()
        yield server
        drain.join(1)
    finally:
        process.kill()
        process.communicate()


def batches(seed: int, n: int, size: int = 8) -> list[list[dict[str, Any]]]:
    """Events as a client sends them, with ids that no other seed has."""
    events = []
    for event in many(n * size, 40, seed):
        form = event_to_json(event)
        events.append({**form.pop("attributes"), **form, "id": f"{seed}-{form['id']}"})
    return [events[i : i + size] for i in range(0, len(events), size)]


@dataclass
class Load:
    """Clients that send batches all at once, and what they were answered."""

    server: Server
    sent: list[list[dict[str, Any]]]
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: list[list[dict[str, Any]]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self, clients: int = 6) -> list[threading.Thread]:
        self.left = list(self.sent)
        threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        return threads

    def _client(self) -> None:
        with self.server.client("ingest") as client:
            while True:
                with self.changed:
                    if not self.left:
                        return
                    batch = self.left.pop(0)
                try:
                    answer = client.post("/v1/events", json=batch)
                except httpx.HTTPError:
                    return
                if answer.status_code == 429:
                    with self.changed:
                        self.left.append(batch)
                    time.sleep(0.05)
                    continue
                if answer.status_code != 200:
                    return
                with self.changed:
                    for result in answer.json()["results"]:
                        assert "error" not in result, result
                        self.answered[result["id"]] = result
                    self.changed.notify_all()

    def wait(self, answers: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.answered) >= answers, PATIENCE_S)


def decided(folder: Path) -> dict[str, tuple[int, str]]:
    """What the ledger has of every event; each of them once."""
    found: dict[str, tuple[int, str]] = {}
    for entry in read_entries(folder / "ledger"):
        if entry.kind == "batch":
            pairs = counted(entry.body, events_of(entry.body), decisions_of(entry.body))
            for event, decision in zip(*pairs, strict=True):
                assert event.id not in found and event.id == decision.event_id
                found[event.id] = (entry.height, decision.verdict.name.lower())
    return found
