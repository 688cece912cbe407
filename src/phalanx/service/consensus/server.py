"""The socket on which the engine talks to the application: ABCI 2.0 over a Unix socket.

The engine opens four connections (consensus, mempool, query, snapshot) and sends requests on each without waiting;
answers go back in the order of the requests. Each connection has a thread of its own: the engine waits for every
answer on the consensus connection, and a blocking read wakes sooner than an event loop.
"""

import logging
import os
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from phalanx.errors import UsageError
from phalanx.service.consensus.abci.abci_types_pb2 import (
    Request,
    Response,
    ResponseEcho,
    ResponseException,
    ResponseFlush,
)
from phalanx.service.consensus.framing import MAX_MESSAGE, FrameError, Framer, frame

__all__ = ["Handler", "Server"]

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 18
_NO_LONGER_PATH = 100  # a Unix socket's path holds 107 bytes on Linux, fewer elsewhere


class Handler(Protocol):
    """What answers the requests: ``handle("info", RequestInfo) -> ResponseInfo`` and so on for each kind.

    Called from several threads. What it raises stops the engine, which is right for a state machine that cannot go on;
    it must answer everything else itself.
    """

    def handle(self, kind: str, request: Any) -> Any:
        """The answer to a request of a kind, named as in ``abci.Request``."""
        ...


class Server:
    """Serves a handler on a Unix socket until it is stopped.

    Args:
        path: of the socket; replaced where a killed process left it. Readable by its owner alone.
        handler: answers.
        limit: bytes of the longest request that is read.

    Attributes:
        errors: how many connections were closed, by reason: ``frame``, ``message``, ``request``, ``handler``.
        peak: the most connections that were open at once.

    Raises:
        UsageError: the path is too long for a Unix socket.
    """

    def __init__(self, path: Path, handler: Handler, *, limit: int = MAX_MESSAGE) -> None:
        if len(os.fsencode(path)) > _NO_LONGER_PATH:
            raise UsageError(
                f"{path}: a Unix socket's path may have {_NO_LONGER_PATH} bytes; choose a shorter folder"
            )
        self.errors: Counter[str] = Counter()
        self.peak = 0
        self._path = path
        self._handler = handler
        self._limit = limit
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = False
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, name="abci-accept", daemon=True)

    def start(self) -> "Server":
        """Begins to accept connections."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Closes every connection and waits for the requests under way."""
        self._stopping = True
        _close(self._listener)
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            _close(connection)
        for thread in (self._thread, *connections.values()):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="abci", daemon=True)
            with self._lock:
                self._open[connection] = thread
                self.peak = max(self.peak, len(self._open))
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._converse(connection)
        except FrameError as problem:
            self._refuse("frame", problem)
        except DecodeError as problem:
            self._refuse("message", problem)
        except OSError:
            pass  # the engine has gone
        finally:
            with self._lock:
                self._open.pop(connection, None)
            _close(connection)

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
        with self._lock:
            self.errors[reason] += 1
        _LOG.error("a connection is closed: %s", problem)


def _close(connection: socket.socket) -> None:
    """Closes a socket so that a thread that waits for it wakes."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.close()
