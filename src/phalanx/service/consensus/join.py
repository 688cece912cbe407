"""Runs one node of a network on the host that it was made for."""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from phalanx.errors import DataError, UsageError
from phalanx.files import write_text
from phalanx.service.consensus import engine
from phalanx.service.consensus.hosts import host_port
from phalanx.service.consensus.node import LISTEN_VARIABLE, RPC_SOCKET, NodeFile
from phalanx.service.consensus.rpc import EngineRpc
from phalanx.service.consensus.supervise import Supervised

__all__ = ["alone", "join"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.5


def join(
    folder: Path,
    *,
    listen: str | None = None,
    environment: Mapping[str, str] | None = None,
    ended: threading.Event | None = None,
) -> None:
    """Runs a node, application and engine, until SIGTERM or SIGINT; both are started again when they end.

    Says in the log (INFO) when the node takes part in the consensus, and when it does no more.

    Args:
        folder: of the node, as ``create_network`` made it with hosts; it may have been moved.
        listen: address to bind, where it is not the one under which others know the host: ``0.0.0.0`` in a container.
        environment: further variables for the application.
        ended: set to end it, too; needed outside a process's main thread, where no signal arrives.

    Raises:
        DataError: the folder is not a node's.
        UsageError: there is no consensus engine; the node belongs to a network on one machine; another process runs it.
    """
    binary = engine.find()
    file = NodeFile.load(folder)
    if file.hosts is None:
        raise UsageError(
            f"{folder}: a node of a network on one machine, which is started as a whole. Make a network with hosts"
        )
    if file.name not in file.hosts.nodes:
        raise DataError(f"{folder}: its hosts do not list {file.name!r}. Restore the folder from a copy")
    host = file.hosts.nodes[file.name]
    variables = {**(environment or {}), **({LISTEN_VARIABLE: listen} if listen else {})}
    ending = ended or threading.Event()
    with alone(folder / "config", "this node"), _signals(ending):
        text = engine.configuration(
            moniker=file.name,
            p2p=host_port(listen, host.port) if listen else host.p2p,
            peers=file.hosts.peers(file.name),
        )
        write_text(folder / "config" / "config.toml", text)
        node = Supervised(folder.resolve(), binary, variables)
        node.start()
        _LOG.info("node %s starts: engine at %s, door on the next port", file.name, host.p2p)
        try:
            _watch(file.name, EngineRpc(folder.resolve() / RPC_SOCKET), ending)
        finally:
            node.stop()
    _LOG.info("node %s has ended", file.name)


def _watch(name: str, rpc: EngineRpc, ended: threading.Event) -> None:
    before = False
    while not ended.wait(_LOOK_S):
        now = rpc.status()["takes_part"]
        if now != before:
            said = (
                "takes part in the consensus"
                if now
                else "does not take part now; see node.log and engine.log"
            )
            _LOG.log(logging.INFO if now else logging.WARNING, "node %s %s", name, said)
            before = now


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keeps other processes out of a folder.

    Args:
        folder: which.
        what: they would run there.

    Raises:
        UsageError: another process is there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another process runs {what}. Stop it first") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    """Sets an event at SIGTERM and SIGINT, where they arrive in this thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
