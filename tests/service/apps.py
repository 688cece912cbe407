"""The HTTP interface over a desk without a committee, in this process, and clients of it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from service.desks import HandDesk

from phalanx.service.admission import Admission, Limits
from phalanx.service.app import create_app
from phalanx.service.endpoints import Backend, HttpConfig
from phalanx.service.http_asks import Query
from phalanx.service.http_guard import Guard
from phalanx.service.intake import Intake
from phalanx.service.ledger import Head
from phalanx.service.metrics import Metrics, Source
from phalanx.service.records import LiveEvent
from phalanx.service.replies import Decision, Decisions, decision_reply
from phalanx.service.tokens import SCOPES, Tokens
from phalanx.service.worker import QueueConfig, Worker

NOW = 1_800_000_000_000_000_000
SECRET = "hunter2-hunter2"
NDJSON = {"content_type": "application/x-ndjson"}
QUEUE, CONFIG, LIMITS = QueueConfig(tick_s=0.05), HttpConfig(body_s=5.0, idle_s=5.0), Limits()
TOKENS = {scope: f"{scope}-token".ljust(40, "x") for scope in SCOPES}
_LINES = "\n".join(f"{s} sha256:{hashlib.sha256(t.encode()).hexdigest()} {s}er" for s, t in TOKENS.items())


def code(answer: Any) -> str:
    """The code of an error, which has the one form."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "remedy"}
    return str(body["error"]["code"])


def redact_event(event: LiveEvent) -> LiveEvent:
    """Takes one secret out."""
    values = {
        name: value.replace(SECRET, "***") if isinstance(value, str) else value
        for name, value in event.attributes.items()
    }
    return replace(event, attributes=values)


class HandIndex:
    """Looks decisions up in what a desk remembers."""

    def __init__(self, desk: HandDesk) -> None:
        self.desk = desk
        self.asked: list[Query] = []

    def decision(self, event_id: str) -> Decision | None:
        found = self.desk.known.get(event_id)
        return None if found is None else decision_reply(found[1], found[0])

    def page(self, query: Query) -> Decisions:
        self.asked.append(query)
        return Decisions(
            [decision_reply(decision, height) for height, decision, _ in self.desk.known.values()]
        )


@dataclass
class Site:
    """A service for tests, and how to ask it."""

    desk: HandDesk
    worker: Worker
    backend: Backend
    app: Guard

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = "",
        content: bytes | AsyncIterator[bytes] | Any = None,
        **headers: str,
    ) -> httpx.Response:
        """The answer to a request; the token is that of a scope, "" for the one that fits, None for none."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            scope = token or _scope_of(path, method)
            sent.setdefault("authorization", f"Bearer {TOKENS.get(scope, scope)}")
        if content is not None and not isinstance(content, bytes) and not hasattr(content, "__aiter__"):
            content = json.dumps(content).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://phalanx") as client:
                return await client.request(method, path, content=content, headers=sent, timeout=60)

        return asyncio.run(asked())

    def metric(self, name: str, **labels: str) -> float:
        """A number that the service measures."""
        wanted = f"phalanx_{name}" + (
            "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        )
        for line in self.backend.metrics.text().decode().splitlines():
            if line.rpartition(" ")[0] == wanted:
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"{wanted} is not measured")


def _scope_of(path: str, method: str) -> str:
    if path.startswith(("/v1/events", "/v1/stream")):
        return "ingest"
    if method == "GET":
        return "read"
    return "approve" if path.startswith(("/v1/restrictions", "/v1/labels")) else "kill"


@contextmanager
def site(
    desk: HandDesk | None = None,
    *,
    queue: QueueConfig = QUEUE,
    config: HttpConfig = CONFIG,
    limits: Limits = LIMITS,
    **given: Any,
) -> Iterator[Site]:
    """A service that runs for a while."""
    desk = desk or HandDesk()
    metrics = Metrics()
    worker = Worker(desk, queue, batch=16, decided=lambda _, answers, took_s: metrics.batch(answers, took_s))
    intake = Intake(Admission(redact_event, lambda: NOW, limits), worker, metrics)
    metrics.source = Source(
        lambda: worker.status,
        admission=intake.admission.counts,
        depth=lambda: worker.depth,
        room=queue.events,
        dropped=lambda: worker.turned_away,
    )
    tokens = Tokens.parse(_LINES)
    backend = Backend(intake, worker, lambda: tokens, metrics, HandIndex(desk), Head, config=config, **given)
    worker.start()
    try:
        yield Site(desk, worker, backend, create_app(backend))
    finally:
        desk.gate.set()
        worker.stop()
        assert worker.join(30)


def sent(number: int | str, **changes: Any) -> dict[str, Any]:
    """An event as a client sends it."""
    form = {
        "id": f"e{number}",
        "time_ns": NOW - 5,
        "host": "h",
        "subject": "p",
        "kind": "READ",
        "path": f"/{number}",
    }
    return {name: value for name, value in {**form, **changes}.items() if value is not ...}


def lines(events: Sequence[Any]) -> bytes:
    """Events as lines."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


class Raw:
    """A client that speaks ASGI itself: what it sends, and when, is the test's to say."""

    def __init__(self, messages: list[dict[str, Any]], *, then_wait: bool = False) -> None:
        self.messages, self.received, self.then_wait = messages, 0, then_wait
        self.parts: list[tuple[int, bytes]] = []

    def ask(
        self, here: Site, method: str, path: str, headers: dict[bytes, bytes], token: str = ""
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        found: dict[str, Any] = {"status": 0, "headers": []}
        given = [*headers.items(), *([(b"authorization", f"Bearer {token}".encode())] if token else [])]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": given,
            "scheme": "http",
            "http_version": "1.1",
            "root_path": "",
        }

        async def receive() -> dict[str, Any]:
            if self.received < len(self.messages):
                self.received += 1
                return self.messages[self.received - 1]
            if self.then_wait:
                await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found.update(status=message["status"], headers=message["headers"])
            elif message.get("body"):
                self.parts.append((self.received, message["body"]))

        asyncio.run(here.app(scope, receive, send))
        return found["status"], dict(found["headers"]), b"".join(part for _, part in self.parts)
