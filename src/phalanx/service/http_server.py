"""uvicorn, more careful: connections are few, heads come in time, an end by signal is an end in order."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from phalanx.errors import DataError, ExtraMissingError, UsageError
from phalanx.service.http_guard import ApiError

__all__ = ["ServerConfig", "bind", "is_loopback", "make_server"]

_HEAD_BYTES = 32_768
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class ServerConfig:
    """Limits of connections.

    Attributes:
        connections: at a time.
        head_s: until the head of a request is there, in s.
        keep_alive_s: how long a connection may be idle between requests, in s.
        drain_s: how long an end waits for requests that are under way, in s.
        certificate, key: files of TLS; None: none.
    """

    connections: int = 512
    head_s: float = 20.0
    keep_alive_s: int = 20
    drain_s: int = 30
    certificate: Path | None = None
    key: Path | None = None


def is_loopback(host: str) -> bool:
    """Whether all addresses of a name are this machine's own loopback.

    Raises:
        UsageError: it has no address.
    """
    import ipaddress

    return all(ipaddress.ip_address(str(address[4][0])).is_loopback for address in _addresses(host, 0))


def bind(host: str, port: int) -> socket.socket:
    """A socket of that address, which nobody can connect to yet.

    Raises:
        UsageError: there is no such address, or somebody has it.
    """
    family, kind, protocol, _, address = _addresses(host, port)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as problem:
        bound.close()
        raise UsageError(
            f"--host {host} --port {port}: cannot be taken ({problem.strerror}). Name another port, or stop who has it"
        ) from None
    bound.set_inheritable(False)
    return bound


def make_server(
    app: Any, config: ServerConfig, stopping: asyncio.Event, refused: Callable[[str], None]
) -> Any:
    """A ``uvicorn.Server``; run it with ``server.run(sockets=[...])``, end it by a signal or ``server.should_exit``.

    Args:
        app: the application.
        config: limits.
        stopping: set, in the loop, as soon as it is to end.
        refused: told the code of what is no request of HTTP.

    Raises:
        ExtraMissingError: the package uvicorn is missing.
        DataError: the certificate or its key cannot be read.
    """
    try:
        import uvicorn
    except ImportError:
        raise ExtraMissingError("uvicorn", "serve", "serving over HTTP") from None

    class Server(uvicorn.Server):
        """Ends in order, and with this process's own exit code."""

        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().serve(sockets)

        async def on_tick(self, counter: int) -> bool:
            ended = await super().on_tick(counter)
            if ended:
                stopping.set()
            return ended

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            try:
                before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
            except ValueError:  # not the main thread
                before = {}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit  # the second time without waiting
            self.should_exit = True

    tls: dict[str, Any] = {}
    if config.certificate is not None and config.key is not None:
        tls = {"ssl_certfile": str(config.certificate), "ssl_keyfile": str(config.key)}
    try:
        settings = uvicorn.Config(
            app,
            http=_protocol(config, refused),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=config.keep_alive_s,
            timeout_graceful_shutdown=config.drain_s,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            **tls,
        )
        settings.load()
    except (OSError, ssl.SSLError) as problem:
        raise DataError(
            f"{config.certificate}, {config.key}: not a certificate and its key ({type(problem).__name__}). "
            "Check the files"
        ) from None
    return Server(settings)


def _protocol(config: ServerConfig, refused: Callable[[str], None]) -> type[asyncio.Protocol]:
    """Connections that are closed where the head of a request does not come in time, or where there are too many."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > config.connections:
                transport.abort()
            else:
                self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._has_head()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait_for_head()
            else:
                self._has_head()

        def on_response_complete(self) -> None:
            self._has_head()  # the server's own wait for the next one begins
            super().on_response_complete()
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self._wait_for_head()  # a part of it came already

        def send_400_response(self, msg: str) -> None:
            refused("bad-request")
            error = ApiError(400, "bad-request", "this is no request of HTTP/1.1", "Check the client")
            head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(head + b"content-length: %d\r\n\r\n" % len(error.body) + error.body)
            self.transport.close()

        def _wait_for_head(self) -> None:
            if self._head is None:
                self._head = self.loop.call_later(config.head_s, self._too_slow)

        def _has_head(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _too_slow(self) -> None:
            refused("too-slow")
            self.transport.close()

    return Protocol


def _addresses(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise UsageError(f"--host {host}: there is no such address. Name one of this machine") from None
