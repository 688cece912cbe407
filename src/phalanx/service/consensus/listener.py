"""A Unix socket that lends a thread to every connection."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from phalanx.errors import UsageError

__all__ = ["Listener", "close_socket", "connect"]

_LONGEST_PATH = 100  # a Unix socket's path holds 107 bytes on Linux, fewer elsewhere


class Listener:
    """Accepts connections on a Unix socket until it is stopped.

    Args:
        path: of the socket; replaced where a killed process left it. Its owner alone can connect.
        serve: called with each connection in a thread of its own; the connection is closed when it returns. OSError
            ends it quietly: the other side has gone.
        most: connections at once; further ones are closed.

    Attributes:
        peak: the most connections that were open at once.

    Raises:
        UsageError: the path is too long for a Unix socket.
    """

    def __init__(self, path: Path, serve: Callable[[socket.socket], None], *, most: int = 64) -> None:
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise UsageError(
                f"{path}: a Unix socket's path may have {_LONGEST_PATH} bytes; choose a shorter folder"
            )
        self.peak = 0
        self._path = path
        self._serve = serve
        self._most = most
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = False
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._accept, name=f"accept {path.name}", daemon=True)

    def start(self) -> None:
        """Begins to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Closes every connection and waits for what is under way."""
        self._stopping = True
        close_socket(self._socket)
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            close_socket(connection)
        for thread in (self._thread, *connections.values()):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(connection,), name=self._path.name, daemon=True)
            with self._lock:
                if len(self._open) >= self._most:
                    close_socket(connection)
                    continue
                self._open[connection] = thread
                self.peak = max(self.peak, len(self._open))
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self._serve(connection)
        finally:
            with self._lock:
                self._open.pop(connection, None)
            close_socket(connection)


def connect(path: Path, timeout_s: float | None = None) -> socket.socket:
    """A connection to a Unix socket.

    Args:
        path: of the socket.
        timeout_s: longest that each later read or write may take; None waits.

    Raises:
        OSError: nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def close_socket(connection: socket.socket) -> None:
    """Closes a socket so that a thread that waits for it wakes."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
