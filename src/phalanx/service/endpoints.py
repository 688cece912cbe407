"""The endpoints: what each does with a request; ``openapi.PATHS`` says where each is.

A token is looked at before the first byte of a body. What touches the desk is done in its thread.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from phalanx.errors import PhalanxError, UsageError
from phalanx.service.admission import Reason, Refused, escaped
from phalanx.service.aside import Aside
from phalanx.service.desk import Desk
from phalanx.service.http_asks import Label, NewMode, Query, Why, asked, choice, idempotency_key, query_of
from phalanx.service.http_guard import ApiError, authorised, content_type, read_body
from phalanx.service.intake import Intake
from phalanx.service.ledger import Head, LedgerBrokenError, LedgerFullError
from phalanx.service.metrics import CONTENT_TYPE, Metrics
from phalanx.service.openapi import schema
from phalanx.service.replies import (
    Decision,
    Decisions,
    Events,
    Health,
    Labels,
    Mode,
    Restrictions,
    encode,
    restriction_reply,
)
from phalanx.service.stream import answer_stream
from phalanx.service.tokens import Tokens
from phalanx.service.worker import UnavailableError, Worker

__all__ = ["Backend", "Endpoints", "HttpConfig", "Index"]

_LOG = logging.getLogger("phalanx")
_JSON, _LINES = "application/json", "application/x-ndjson"
_SMALL = 65_536


@dataclass(frozen=True)
class HttpConfig:
    """Limits of requests.

    Attributes:
        body_bytes: of a body, a stream's aside.
        body_s: until a body is there, in s.
        idle_s: how long nothing may come in a stream, in s.
        labels: of one request, at most.
        index_s: how long what is looked up may take, in s.
    """

    body_bytes: int = 2**20
    body_s: float = 30.0
    idle_s: float = 60.0
    labels: int = 1000
    index_s: float = 30.0


@runtime_checkable
class Index(Protocol):
    """Where decisions are looked up; called from threads of their own."""

    def decision(self, event_id: str) -> Decision | None:
        """The decision on an event."""
        ...

    def page(self, query: Query) -> Decisions:
        """A page of decisions.

        Raises:
            UsageError: ``after`` is of no page.
        """
        ...


@dataclass
class Backend:
    """What is behind the interface.

    Attributes:
        intake: where events go.
        worker: whose desk it is.
        tokens: those that are valid now.
        metrics: where it is counted.
        index: where decisions are looked up.
        head: the ledger's.
        label: takes what was true of events: id, whether malicious; how many are known. In the desk's thread.
        resumed: told, in the desk's thread, that an operator ended shadow mode.
        notes: what an operator should look at: codes of a closed list.
        redact: takes secrets out of a text.
        config: limits.
        stopping: set when the service ends.
    """

    intake: Intake
    worker: Worker
    tokens: Callable[[], Tokens]
    metrics: Metrics
    index: Index
    head: Callable[[], Head]
    label: Callable[[Desk, Sequence[tuple[str, bool]]], int] = lambda desk, labels: 0
    resumed: Callable[[], None] = lambda: None
    notes: Callable[[], Sequence[str]] = tuple
    redact: Callable[[str], str] = str
    config: HttpConfig = HttpConfig()
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class Endpoints:
    """Answers requests.

    Args:
        backend: what is behind them.
        title, version: of the schema.
    """

    def __init__(self, backend: Backend, title: str, version: str) -> None:
        from fastapi import Response

        self.backend, self._response = backend, Response
        self._aside = Aside("looking up", threads=4)
        self._schema = encode(schema(title, version))

    # --- events ---------------------------------------------------------------------------------------------

    async def post_events(self, request: Any) -> Any:
        backend, headers = self.backend, request.scope["headers"]
        self._caller(request, "ingest")
        lines = content_type(headers, (_JSON, _LINES)) == _LINES
        key = idempotency_key(headers)
        body = await read_body(headers, request.receive, backend.config.body_bytes, backend.config.body_s)
        items = backend.intake.admission.split(body, lines=lines)
        if isinstance(items, Refused):
            status = 413 if items.reason is Reason.TOO_MANY_EVENTS else 400
            raise ApiError(status, items.reason.value, items.message, items.remedy)
        results = await self._tried(backend.intake.results(items, key=key))
        decided = sum(result.error is None for result in results)
        reply = Events(backend.worker.status.mode, decided, len(results) - decided, results)
        if decided:
            return self._reply(reply)
        codes = {result.error.code for result in results if result.error is not None}
        failed = codes & {"ledger-full", "failed"}
        return self._reply(reply, 503 if failed else 400, {"retry-after": "5"} if failed else {})

    async def post_stream(self, request: Any) -> Any:
        self._caller(request, "ingest")
        content_type(request.scope["headers"], (_LINES,))
        backend = self.backend

        class Streamed(self._response):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await answer_stream(
                    backend.intake,
                    receive,
                    send,
                    backend.stopping,
                    batch=backend.intake.worker.batch,
                    idle_s=backend.config.idle_s,
                )

        return Streamed()

    # --- reading --------------------------------------------------------------------------------------------

    async def get_decisions(self, request: Any) -> Any:
        self._caller(request, "read")
        query = query_of(request.query_params)
        return self._reply(
            await self._tried(
                self._elsewhere(lambda: self.backend.index.page(query)),
                usage=400,
                remedy="Leave it out for the first page",
            )
        )

    async def get_decision(self, request: Any) -> Any:
        self._caller(request, "read")
        name = request.path_params["event_id"]
        found = await self._tried(self._elsewhere(lambda: self.backend.index.decision(name)))
        if found is None:
            raise ApiError(404, "not-found", "no decision on such an event is known", "Check the id")
        return self._reply(found)

    async def get_restrictions(self, request: Any) -> Any:
        self._caller(request, "read")
        every = choice(request.query_params, "state", ("open", "all")) == "all"

        def listed(desk: Desk) -> Restrictions:
            books = (desk.safety.state.real, desk.safety.state.shadow)
            found = [
                each for book in books for each in (book.restrictions.values() if every else book.all_open())
            ]
            return Restrictions(
                [restriction_reply(each) for each in sorted(found, key=lambda r: r.asked.steady_ns)]
            )

        return self._reply(await self._on_desk(listed))

    async def get_head(self, request: Any) -> Any:
        self._caller(request, "read")
        return self._reply(self.backend.head().to_json())

    async def get_metrics(self, request: Any) -> Any:
        self._caller(request, "read")
        text = await self._tried(self._elsewhere(self.backend.metrics.text))
        return self._response(text, media_type=None, headers={"content-type": CONTENT_TYPE})

    async def get_openapi(self, request: Any) -> Any:
        self._caller(request, "read")
        return self._response(self._schema, headers={"content-type": _JSON})

    async def get_health(self, request: Any) -> Any:
        worker, status = self.backend.worker, self.backend.worker.status
        fine = worker.alive and not worker.stopping and not status.broken
        notes = ["killed"] if status.killed else []
        notes += ["fallback"] if status.fallback else []
        notes += ["ledger-broken"] if status.broken else []
        notes += ["ledger-full"] if worker.full else []
        notes += ["failed"] if worker.failure and not status.broken else []
        notes += ["stopping"] if worker.stopping and not worker.failure else []
        notes += self.backend.notes()
        return self._reply(Health("ok" if fine else "failing", status.mode, notes), 200 if fine else 503)

    # --- operators ------------------------------------------------------------------------------------------

    async def post_approve(self, request: Any) -> Any:
        return await self._operate(request, "approve")

    async def post_deny(self, request: Any) -> Any:
        return await self._operate(request, "deny")

    async def post_undo(self, request: Any) -> Any:
        return await self._operate(request, "undo")

    async def _operate(self, request: Any, action: str) -> Any:
        caller = self._caller(request, "approve")
        why = self._why((await self._asked(request, Why)).why)
        name = request.path_params["restriction_id"]

        def act(desk: Desk) -> Any:
            if desk.safety.state.find(name) is None:
                raise ApiError(
                    404, "not-found", "there is no such restriction", "See GET /v1/restrictions?state=all"
                )
            desk.act(lambda safety: getattr(safety, action)(name, by=caller.name, why=why))
            found = desk.safety.state.find(name)
            assert found is not None
            return restriction_reply(found)

        return self._reply(await self._on_desk(act, "See GET /v1/restrictions?state=all"))

    async def post_kill(self, request: Any) -> Any:
        caller = self._caller(request, "kill")
        why = self._why((await self._asked(request, Why)).why)
        return await self._switch(lambda safety: safety.kill(by=caller.name, why=why))

    async def post_release(self, request: Any) -> Any:
        caller = self._caller(request, "kill")
        why = self._why((await self._asked(request, Why)).why)
        return await self._switch(lambda safety: safety.release(by=caller.name, why=why))

    async def post_mode(self, request: Any) -> Any:
        caller = self._caller(request, "kill")
        asked = await self._asked(request, NewMode)
        why = self._why(asked.why)
        if asked.mode == "enforce":
            return await self._switch(
                lambda safety: safety.enforce(by=caller.name, why=why), self.backend.resumed
            )
        return await self._switch(
            lambda safety: safety.fall_back(by=caller.name, why=why or f"asked for by {caller.name!r}")
        )

    async def _switch(self, action: Callable[[Any], Any], then: Callable[[], None] = lambda: None) -> Any:
        def act(desk: Desk) -> Mode:
            desk.act(action)
            then()
            state = desk.safety.state
            return Mode(desk.mode, state.killed, state.fallback or "")

        return self._reply(await self._on_desk(act))

    async def post_labels(self, request: Any) -> Any:
        self._caller(request, "approve")
        asked = await self._asked(request, list[Label], self.backend.config.body_bytes)
        if not 0 < len(asked) <= self.backend.config.labels:
            raise ApiError(
                400, "bad-request", "no labels, or too many", f"Send 1 to {self.backend.config.labels}"
            )
        labels = [(each.id, each.malicious) for each in asked]
        known = await self._on_desk(lambda desk: self.backend.label(desk, labels))
        return self._reply(Labels(known, len(labels) - known))

    # --- what all have in common ----------------------------------------------------------------------------

    def _caller(self, request: Any, scope: str) -> Any:
        return authorised(request.scope["headers"], self.backend.tokens(), scope)

    def _reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        return self._response(encode(value), status, {"content-type": _JSON, **(headers or {})})

    def _why(self, why: str) -> str:
        return self.backend.redact(escaped(why))

    async def _asked(self, request: Any, kind: Any, limit: int = _SMALL) -> Any:
        """The JSON of a body, of just this form; where all of it may be left out, it may be empty."""
        headers, config = request.scope["headers"], self.backend.config
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            body = await read_body(headers, request.receive, limit, config.body_s)
        else:
            body = b""
        if not body and kind is Why:
            return Why()
        content_type(headers, (_JSON,))
        return asked(body, kind)

    async def _tried(self, result: Any, *, usage: int = 409, remedy: str = "See GET /healthz") -> Any:
        """Awaits, and makes answers of what went wrong; of what was asked wrongly one with that status and remedy."""
        try:
            return await result
        except UnavailableError as problem:
            headers = {"retry-after": str(problem.retry_s)} if problem.retry_s else {}
            status = 429 if problem.code == "queue-full" else 503
            raise ApiError(status, problem.code, str(problem), "Send it again later", headers) from None
        except LedgerFullError as problem:
            raise ApiError(503, "ledger-full", str(problem), "Make room", {"retry-after": "5"}) from None
        except LedgerBrokenError:
            raise ApiError(
                503, "failed", "the ledger takes nothing more", "Start the service again"
            ) from None
        except UsageError as problem:
            code = "conflict" if usage == 409 else "bad-request"
            raise ApiError(usage, code, escaped(str(problem))[:1000], remedy) from None
        except PhalanxError as problem:
            _LOG.error("%s", escaped(str(problem)))
            raise ApiError(
                503, "unavailable", "it cannot be asked now; the log says why", "Ask again later"
            ) from None

    async def _elsewhere(self, call: Callable[[], Any]) -> Any:
        """What may ask the database, whose hanging must hold up nothing else."""
        asked = self._aside.submit(call)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), self.backend.config.index_s)
        except TimeoutError:
            raise UnavailableError(
                "unavailable", f"the database did not answer within {self.backend.config.index_s:g} s", 5
            ) from None

    async def _on_desk(self, action: Callable[[Desk], Any], remedy: str = "See GET /healthz") -> Any:
        try:
            future: Future[Any] = self.backend.worker.act(action)
        except UnavailableError as problem:
            raise ApiError(503, problem.code, str(problem), "Send it again later") from None
        return await self._tried(asyncio.wrap_future(future), remedy=remedy)
