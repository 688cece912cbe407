"""Follows the replies of all nodes and passes on, in order, what f + 1 of them say alike."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.asking import ask, entry_of, ledger_height
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.door import message, read_message
from phalanx.service.consensus.framing import Framer
from phalanx.service.consensus.listener import Address, connect, wake
from phalanx.service.consensus.replies import Agreed, Reply, Tally, reply_bytes

__all__ = ["Follower", "ask", "entry_of", "ledger_height"]

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 16
_SILENT_S = 10.0
_AGAIN_S = (0.05, 1.0)
_CLOSE_S = 5.0


class Follower:
    """Follows all nodes while its block runs, however often they go and come back.

    A thread of its own passes on what was agreed on; while it waits for whoever is told, each node is read no further
    than a window ahead, and what follows stays with the nodes.

    Args:
        chain: of the network.
        doors: addresses of the nodes' sockets.
        start: height of the ledger to begin at.
        agreed: told of what was agreed on, height by height, none twice and none left out, from one thread at a time.
            It may take its time; where it raises, it is told the same again a little later.
        window: heights that are read ahead; None: see ``Tally``.

    Attributes:
        ending: set once the block ends: whoever is told should not begin anything that takes long.
    """

    def __init__(
        self,
        chain: Chain,
        doors: Sequence[Address],
        start: int,
        agreed: Callable[[Agreed], None],
        *,
        window: int | None = None,
    ) -> None:
        self.ending = threading.Event()
        self._tally = Tally(chain, start, window)
        self._longest = reply_bytes(chain)
        self._agreed = agreed
        self._next = start
        self._waiting: dict[int, Agreed] = {}
        self._changed = (
            threading.Condition()
        )  # never held while another's code runs, or a socket is waited for
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._deliver, name="agreed", daemon=True)] + [
            threading.Thread(target=self._follow, args=(door,), name=f"follow {door}", daemon=True)
            for door in doors
        ]

    @property
    def height(self) -> int:
        """Of the ledger: the last one that was passed on, or was known at the start."""
        return self._next - 1

    @property
    def evidence(self) -> Sequence[dict[str, Any]]:
        """Evidence against members that said two things (see ``Tally``)."""
        with self._changed:
            return tuple(self._tally.evidence)

    @property
    def refused(self) -> int:
        """Replies that were not believed, whoever sent them (see ``Tally``), and messages that were no replies."""
        return self._tally.refused

    def __enter__(self) -> "Follower":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        with self._changed:
            self._changed.notify_all()
            sockets = list(self._sockets)
        for connection in sockets:
            wake(connection)
        deadline = (
            time.monotonic() + _CLOSE_S
        )  # a node may be silent in a handshake, or what is told may wait
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _follow(self, door: Address) -> None:
        wait = _AGAIN_S[0]
        while not self.ending.wait(wait):
            try:
                with contextlib.closing(connect(door, _SILENT_S)) as connection:
                    with self._changed:
                        self._sockets.add(connection)
                    try:
                        self._listen(connection)
                    finally:
                        with self._changed:
                            self._sockets.discard(connection)
                wait = _AGAIN_S[0]
            except (OSError, DataError) as problem:
                _LOG.debug("%s: %s", door, problem)
                wait = min(2 * wait, _AGAIN_S[1])
            except Exception:
                _LOG.exception("%s: its replies could not be read; they are asked for again", door)
                wait = _AGAIN_S[1]

    def _listen(self, connection: socket.socket) -> None:
        connection.sendall(message({"do": "follow", "from": self._next}))
        framer = Framer(self._longest)
        while not self.ending.is_set() and (data := connection.recv(_CHUNK)):
            try:
                for told in framer.feed(data):
                    form = read_message(told)
                    if isinstance(form, dict) and "said" in form:
                        self._take(Reply.from_json(form))
            except DataError:
                with self._changed:
                    self._tally.refused += 1
                raise

    def _take(self, reply: Reply) -> None:
        self._wait_until_near(reply.said.height)
        with self._changed:
            agreed = None if self.ending.is_set() else self._tally.add(reply)
            if agreed is not None:
                self._waiting[agreed.height] = agreed
                self._changed.notify_all()

    def _wait_until_near(self, height: int) -> None:
        """Keeps a node's connection waiting while the others, or whoever is told, are too far behind."""
        with self._changed:
            while height > self._next + self._tally.window and not self.ending.is_set():
                self._changed.wait()

    def _deliver(self) -> None:
        """Passes on what was agreed on, in order."""
        wait = _AGAIN_S[0]
        while (agreed := self._coming()) is not None:
            try:
                self._agreed(agreed)
            except Exception as problem:
                if isinstance(problem, OSError | DataError):
                    _LOG.debug("height %d: %s", agreed.height, problem)
                else:
                    _LOG.exception("what was agreed on could not be passed on; it is tried again")
                self.ending.wait(wait)
                wait = min(2 * wait, _AGAIN_S[1])
                continue
            wait = _AGAIN_S[0]
            with self._changed:
                del self._waiting[self._next]
                self._next += 1
                self._tally.advance(self._next)
                self._changed.notify_all()

    def _coming(self) -> Agreed | None:
        """What is to be passed on next, once it was agreed on; None at the end."""
        with self._changed:
            while self._next not in self._waiting and not self.ending.is_set():
                self._changed.wait()
            return None if self.ending.is_set() else self._waiting[self._next]
