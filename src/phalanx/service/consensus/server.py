"""The socket on which the engine talks to the application: ABCI 2.0 over a Unix socket.

The engine opens four connections (consensus, mempool, query, snapshot) and sends requests on each without waiting;
answers go back in the order of the requests. Each connection has a thread of its own: the engine waits for every
answer on the consensus connection, and a blocking read wakes sooner than an event loop.
"""

import logging
import socket
from collections import Counter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from google.protobuf.message import DecodeError

from phalanx.service.consensus.abci.abci_types_pb2 import (
    Request,
    Response,
    ResponseEcho,
    ResponseException,
    ResponseFlush,
)
from phalanx.service.consensus.framing import MAX_MESSAGE, FrameError, Framer, frame
from phalanx.service.consensus.listener import Listener

__all__ = ["Handler", "Server"]

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 18


@runtime_checkable
class Handler(Protocol):
    """What answers the requests: ``handle("info", RequestInfo) -> ResponseInfo`` and so on for each kind.

    Called from several threads. What it raises stops the engine, which is right for a state machine that cannot go on;
    it must answer everything else itself.
    """

    def handle(self, kind: str, request: Any) -> Any:
        """The answer to a request of a kind, named as in ``abci.Request``."""
        ...


class Server:
    """Serves a handler on a Unix socket while its block runs.

    Args:
        path: of the socket (see ``Listener``).
        handler: answers.
        limit: bytes of the longest request that is read.

    Attributes:
        errors: how many connections were closed, by reason: ``frame``, ``message``, ``request``, ``handler``.

    Raises:
        UsageError: the path is too long for a Unix socket.
    """

    def __init__(self, path: Path, handler: Handler, *, limit: int = MAX_MESSAGE) -> None:
        self.errors: Counter[str] = Counter()
        self._handler = handler
        self._limit = limit
        self._listener = Listener(path, self._serve)

    @property
    def peak(self) -> int:
        """The most connections that were open at once."""
        return self._listener.peak

    def __enter__(self) -> "Server":
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._converse(connection)
        except FrameError as problem:
            self._refuse("frame", problem)
        except DecodeError as problem:
            self._refuse("message", problem)

    def _converse(self, connection: socket.socket) -> None:
        framer = Framer(self._limit)
        while data := connection.recv(_CHUNK):
            out = bytearray()
            for message in framer.feed(data):
                answer, go_on = self._answer(Request.FromString(message))
                out += frame(answer.SerializeToString())
                if answer.HasField("flush") or not go_on:
                    connection.sendall(out)
                    out.clear()
                if not go_on:
                    return
            if out:
                connection.sendall(out)

    def _answer(self, request: Request) -> tuple[Response, bool]:
        """The answer, and whether the connection goes on after it."""
        kind = request.WhichOneof("value")
        if kind == "flush":
            return Response(flush=ResponseFlush()), True
        if kind is None:
            self._refuse("request", "a request without content, or of a kind that ABCI 2.0 does not have")
            return Response(exception=ResponseException(error="unknown request")), False
        try:
            if kind == "echo":
                return Response(echo=ResponseEcho(message=request.echo.message)), True
            return Response(**{kind: self._handler.handle(kind, getattr(request, kind))}), True
        except Exception as problem:
            _LOG.exception("the application cannot answer a request %s", kind)
            self.errors["handler"] += 1
            return Response(exception=ResponseException(error=f"{kind}: {problem}")), False

    def _refuse(self, reason: str, problem: object) -> None:
        self.errors[reason] += 1
        _LOG.error("a connection is closed: %s", problem)
