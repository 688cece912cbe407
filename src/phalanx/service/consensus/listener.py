"""A socket, of Unix or of TLS over TCP, that lends a thread to every connection; and how to connect to one.

Over TCP strangers come too. What they can have is a thread for the length of a handshake, few at a time and fewer from
one address, apart from the places of those who are known.
"""

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from phalanx.errors import UsageError
from phalanx.service.consensus.tls import TlsAddress

__all__ = ["Address", "Listener", "close_socket", "connect", "wake"]

Address = Path | TlsAddress
"""Where somebody listens: the path of a Unix socket, or a door over TCP."""

_LOG = logging.getLogger(__name__)
_LONGEST_PATH = 100  # a Unix socket's path holds 107 bytes on Linux, fewer elsewhere
_STRANGERS, _OF_ONE_ADDRESS = 32, 8  # connections whose handshake is not done
_HANDSHAKE_S = 5.0
_GONE_S = 20  # without an answer of the other side's kernel a connection ends
_AGAIN_S = 0.05


class Listener:
    """Accepts connections on a socket until it is stopped.

    Args:
        address: path of a Unix socket, replaced where a killed process left it: its owner alone can connect; or where
            to listen over TCP: those whom it names can connect.
        serve: called with each connection in a thread of its own; the connection is closed when it returns. OSError
            ends it quietly: the other side has gone.
        most: connections at once; further ones are closed.

    Attributes:
        peak: the most connections that were open at once.
        refused: how many were closed before they were served, by reason: ``strangers`` (too many), ``handshake``,
            ``many``.

    Raises:
        UsageError: the path is too long for a Unix socket; nobody can listen at that address of TCP here.
    """

    def __init__(self, address: Address, serve: Callable[[socket.socket], None], *, most: int = 64) -> None:
        self.peak = 0
        self.refused: Counter[str] = Counter()
        self._address = address
        self._serve = serve
        self._most = most
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._strangers: dict[socket.socket, str] = {}
        self._stopping = False
        self._socket = _unix(address) if isinstance(address, Path) else _tcp(address)
        name = address.name if isinstance(address, Path) else str(address)
        self._thread = threading.Thread(target=self._accept, name=f"accept {name}", daemon=True)

    def start(self) -> None:
        """Begins to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Closes every connection and waits for what is under way."""
        self._stopping = True
        close_socket(self._socket)
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            close_socket(connection)
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join()
        if isinstance(self._address, Path):
            self._address.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, peer = self._socket.accept()
            except OSError:  # too many open files, or stopped
                if not self._stopping:
                    time.sleep(_AGAIN_S)
                continue
            try:
                self._take(connection, peer)
            except OSError:  # it has gone already
                close_socket(connection)

    def _take(self, connection: socket.socket, peer: object) -> None:
        """Gives a connection its thread, or closes it."""
        stranger = None
        if isinstance(self._address, TlsAddress):
            stranger = str(peer[0]) if isinstance(peer, tuple) else ""
            _keep_alive(connection)
            connection = self._address.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        thread = threading.Thread(target=self._run, args=(connection,), name="connection", daemon=True)
        with self._lock:
            reason = self._too_many(stranger)
            if reason is None:
                self._open[connection] = thread
                if stranger is None:
                    self.peak = max(self.peak, len(self._open))
                else:
                    self._strangers[connection] = stranger
        if reason is not None:
            self.refused[reason] += 1
            close_socket(connection)
            return
        thread.start()

    def _too_many(self, stranger: str | None) -> str | None:
        if stranger is None:
            return "many" if len(self._open) >= self._most else None
        of_one = sum(address == stranger for address in self._strangers.values())
        return "strangers" if len(self._strangers) >= _STRANGERS or of_one >= _OF_ONE_ADDRESS else None

    def _run(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                if self._welcome(connection):
                    self._serve(connection)
        finally:
            with self._lock:
                self._strangers.pop(connection, None)
                self._open.pop(connection, None)
            close_socket(connection)

    def _welcome(self, connection: socket.socket) -> bool:
        """Whether a connection is served: over TCP after the handshake, if there is still a place."""
        address = self._address
        if not isinstance(connection, ssl.SSLSocket) or not isinstance(address, TlsAddress):
            return True
        try:
            connection.settimeout(_HANDSHAKE_S)
            connection.do_handshake()
            address.other_side(connection)
            connection.settimeout(None)
        except OSError as problem:
            self.refused["handshake"] += 1
            _LOG.info("%s: a connection is refused (%s)", address, problem)
            return False
        with self._lock:
            del self._strangers[connection]
            known = len(self._open) - len(self._strangers)
            self.peak = max(self.peak, min(known, self._most))
        if known > self._most:
            self.refused["many"] += 1
        return known <= self._most


def connect(address: Address, timeout_s: float | None = None) -> socket.socket:
    """A connection to a socket.

    Args:
        address: of the socket.
        timeout_s: longest that the connection itself, its handshake included, and each later read or write may take;
            None waits.

    Raises:
        OSError: nobody listens; over TCP, or it is not whom the address names.
    """
    if isinstance(address, TlsAddress):
        return _call(address, timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _reachable(address) as place:
            connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def _call(address: TlsAddress, timeout_s: float | None) -> ssl.SSLSocket:
    began = time.monotonic()
    connection = socket.create_connection((address.host, address.port), timeout_s)
    try:
        _keep_alive(connection)
        if timeout_s is not None:  # of which one handshake takes no more, in how many pieces it comes
            connection.settimeout(max(0.001, timeout_s - (time.monotonic() - began)))
        secure = address.context.wrap_socket(connection)  # takes the socket over
    except BaseException:
        connection.close()
        raise
    try:
        secure.settimeout(timeout_s)
        address.other_side(secure)
    except BaseException:
        secure.close()
        raise
    return secure


def _keep_alive(connection: socket.socket) -> None:
    """Sends what is small at once, and ends a connection whose other side has gone without a word."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": _GONE_S * 1000}
    for name, value in options.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(path) as place:
            made.bind(place)
    except OSError as problem:
        made.close()
        raise UsageError(
            f"{path}: no socket can be made there ({problem}); choose a shorter folder, or another"
        ) from None
    path.chmod(0o600)
    made.listen(16)
    return made


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """The path of a socket in a form that a Unix socket takes: a long one by its folder's descriptor."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _tcp(address: TlsAddress) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(place[0]), address.port), family=family, backlog=64)
    except OSError as problem:
        raise UsageError(
            f"{address}: cannot listen there ({problem.strerror or problem}). Start the node on the host that it was "
            "made for, or say where to listen, or end what listens there"
        ) from None


def wake(connection: socket.socket) -> None:
    """Ends a connection so that a thread that waits for it wakes, and closes it itself."""
    with contextlib.suppress(OSError):
        # not ssl's own shutdown, which would let another thread go on in plain text
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def close_socket(connection: socket.socket) -> None:
    """Closes a socket so that a thread that waits for it wakes."""
    wake(connection)
    connection.close()
