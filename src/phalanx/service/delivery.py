"""Delivery of the outbox: each message at least once, signed, to its listed destination and nowhere else.

No redirect is followed, no proxy of the environment used, no more than a little of an answer read. What fails is tried
again, later each time and never exactly then; what has failed too often is given up and an operator is called.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phalanx.errors import DataError, ExtraMissingError
from phalanx.service.clock import SECOND_NS, Clock
from phalanx.service.commands import Command
from phalanx.service.ocsf import OCSF_VERSION, finding
from phalanx.service.openc2 import openc2
from phalanx.service.outbox import Message, Outbox, store_knows
from phalanx.service.redaction import safe_text
from phalanx.service.store import Store
from phalanx.service.store_tables import plain
from phalanx.service.webhooks import Destination, sign

__all__ = ["Delivery", "DeliveryConfig", "message_of"]

_LOG = logging.getLogger("phalanx")
_CONTENT_TYPES = {"openc2": "application/openc2-cmd+json;version=1.0"}
_UNINDEXED_NS = 10 * SECOND_NS  # how long a message waits for the decision that it is about to be indexed


@dataclass(frozen=True)
class DeliveryConfig:
    """How it is tried.

    Attributes:
        attempts: before a message is given up.
        first_s: wait after the first failure, in s; twice as long after each further one.
        longest_s: the longest wait, in s.
        answer_bytes: of an answer that are read, at most.
        idle_s: how long nothing is looked for where nothing waits, in s.
        schema: OCSF version of findings.
    """

    attempts: int = 15
    first_s: float = 1.0
    longest_s: float = 300.0
    answer_bytes: int = 65_536
    idle_s: float = 5.0
    schema: str = OCSF_VERSION


class Delivery:
    """Sends what waits, in a thread of its own.

    Args:
        store: where decisions are looked up.
        outbox: what waits.
        clock: the time.
        config: how it is tried.
        gave_up: called with a destination's name and why, in this thread, when a message is given up.
        seed: of the chance in waits.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        config: DeliveryConfig = DeliveryConfig(),
        *,
        gave_up: Callable[[str, str], None] = lambda name, why: None,
        seed: int = 0,
    ) -> None:
        self.config = config
        self._store, self._outbox, self._clock = store, outbox, clock
        self._gave_up = gave_up
        self._chance = random.Random(seed)
        self._paused_until_ns: dict[str, int] = {}
        self._clients: dict[str, Any] = {}
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to send."""
        _httpx()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something new waits."""
        self._wake.set()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ends after the message that is on its way; the others wait for the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.close()

    def close(self) -> None:
        """Closes connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def step(self) -> float:
        """Tries all that is due, once.

        Returns:
            How long nothing is due, in s.
        """
        wait_s = self.config.idle_s
        for destination in self._outbox.destinations.values():
            for message in self._outbox.heads(destination.name):
                now_ns = self._clock.wall_ns()
                due_ns = max(message.due_ns, self._paused_until_ns.get(destination.name, 0))
                if due_ns > now_ns + round(self.config.longest_s * SECOND_NS):
                    due_ns = now_ns  # the clock was set back: nobody waits that long
                if now_ns >= message.until_ns:
                    self._outbox.end(message, "expired", "its time has passed")
                    wait_s = 0.0
                elif now_ns < due_ns:
                    wait_s = min(wait_s, (due_ns - now_ns) / SECOND_NS)
                elif not self._stopping.is_set():
                    wait_s = min(wait_s, self._try(destination, message))
        return wait_s

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                wait_s = self.step()
            except DataError as problem:  # the database is away: it may come back
                _LOG.error("outbox: %s", problem)
                wait_s = self.config.idle_s
            self._wake.wait(wait_s)

    def _try(self, destination: Destination, message: Message) -> float:
        """One attempt; how long to wait for the next thing, in s."""
        command = message.command
        # findings alone tell of the decision
        known = message.form != "ocsf" or not command.height or store_knows(self._store, command.height)
        if not known and self._clock.wall_ns() < command.at.wall_ns + _UNINDEXED_NS:
            return 0.1
        body = message_of(message.form, command, self._store, self.config.schema)
        problem, retry_s, whole = self._post(destination, message, body)
        if not problem:
            self._outbox.end(message, "sent")
            return 0.0
        if message.attempts + 1 >= self.config.attempts:
            why = f"{message.attempts + 1} attempts: {problem}"
            self._outbox.end(message, "given-up", why)
            _LOG.error("outbox: gave up message %s to %s after %s", message.id, destination.name, why)
            self._gave_up(destination.name, why)
            return 0.0
        wait_s = max(retry_s, self._backoff_s(message.attempts))
        due_ns = self._clock.wall_ns() + round(wait_s * SECOND_NS)
        self._outbox.retry(message, due_ns, problem)
        if whole:  # not this message's fault: the others would fail as well
            self._paused_until_ns[destination.name] = due_ns
        return wait_s

    def _backoff_s(self, attempts: int) -> float:
        longest_s = min(self.config.longest_s, self.config.first_s * 2.0 ** min(attempts, 32))
        return longest_s * self._chance.uniform(0.5, 1.0)

    def _post(self, destination: Destination, message: Message, body: bytes) -> tuple[str, float, bool]:
        """One request: what went wrong (empty: nothing), how long to wait at least, whether it is the destination."""
        httpx = _httpx()
        headers = sign(destination.secret, message.id, body, self._clock.wall_ns() // SECOND_NS)
        headers |= {
            "Content-Type": _CONTENT_TYPES.get(message.form, "application/json"),
            "User-Agent": "phalanx",
        }
        try:
            client = self._client(destination)
            with client.stream("POST", destination.url, content=body, headers=headers) as answer:
                self._read_a_little(answer, destination.timeout_s)
                status, after = answer.status_code, answer.headers.get("Retry-After", "")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:
            return f"{type(problem).__name__}", 0.0, True
        if 200 <= status < 300:
            return "", 0.0, False
        if 300 <= status < 400:
            return f"HTTP {status}: redirects are not followed; correct the URL", 0.0, True
        retry_s = min(float(after), self.config.longest_s) if after.isascii() and after.isdigit() else 0.0
        return f"HTTP {status}", retry_s, status >= 500 or status in (401, 403, 404, 408, 429)

    def _read_a_little(self, answer: Any, timeout_s: float) -> None:
        """So that a connection can serve again; no endless or dripping answer is read to its end."""
        read, until = 0, time.monotonic() + timeout_s
        for part in answer.iter_raw(4_096):
            read += len(part)
            if read > self.config.answer_bytes or time.monotonic() > until:
                return

    def _client(self, destination: Destination) -> Any:
        if destination.name not in self._clients:
            import ssl

            httpx = _httpx()
            context = ssl.create_default_context(cafile=destination.ca_file or None)
            self._clients[destination.name] = httpx.Client(
                verify=context,
                trust_env=False,
                follow_redirects=False,
                timeout=destination.timeout_s,
                limits=httpx.Limits(max_connections=1),
            )
        return self._clients[destination.name]


def message_of(form: str, command: Command, store: Store | None = None, schema: str = OCSF_VERSION) -> bytes:
    """The body of a message.

    Args:
        form: of ``webhooks.FORMATS``.
        command: what it tells.
        store: where the decision behind it is looked up.
        schema: OCSF version of findings.
    """
    if form == "openc2":
        made = openc2(command)
    elif form == "ocsf":
        found = store.by_id(command.event_id) if store is not None and command.event_id else None
        if found is not None and command.height and found.height != command.height:
            found = None  # an id that came again
        made = finding(
            command, found.event if found else None, found.decision if found else None, schema=schema
        )
    else:
        made = _page(command)
    return json.dumps(_interoperable(made), separators=(",", ":"), allow_nan=False).encode()


def _page(command: Command) -> dict[str, Any]:
    restriction = command.restriction
    told = {
        "type": "phalanx.page",
        "key": command.key,
        "time_ms": command.at.wall_ns // 1_000_000,
        "reason": "approval" if command.action == "ask" else ", ".join(command.reasons),
        "host": safe_text(command.host, 200),
        "subject": safe_text(command.subject, 200),
        "event": safe_text(command.event_id, 200),
        "by": safe_text(command.by, 200),
        "why": safe_text(command.why),
    }
    if restriction is not None:
        told["restriction"] = restriction.id
        told["answer_before_ms"] = restriction.deadline_wall_ns // 1_000_000
    return told


def _interoperable(value: Any) -> Any:
    """The value in I-JSON (RFC 7493): no lone surrogates."""
    if isinstance(value, str):
        return value if value.isascii() else plain(value)
    if isinstance(value, dict):
        return {key: _interoperable(item) for key, item in value.items()}
    return [_interoperable(item) for item in value] if isinstance(value, list) else value


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ExtraMissingError("httpx", "serve", "sending messages") from None
    return httpx
