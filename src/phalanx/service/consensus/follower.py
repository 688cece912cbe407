"""Follows the replies of all nodes and passes on, in order, what f + 1 of them say alike."""

import base64
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.door import message, read_message
from phalanx.service.consensus.framing import Framer
from phalanx.service.consensus.listener import Address, close_socket, connect
from phalanx.service.consensus.replies import Agreed, Reply, Tally
from phalanx.service.ledger_entry import Entry, entry_flaw
from phalanx.service.statements import Statement

__all__ = ["Follower", "ask", "entry_of", "ledger_height"]

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 18
_SILENT_S = 10.0
_AGAIN_S = (0.05, 1.0)


class Follower:
    """Follows all nodes while its block runs, however often they go and come back.

    Args:
        chain: of the network.
        doors: addresses of the nodes' sockets.
        start: height of the ledger to begin at.
        agreed: told of what was agreed on, height by height, none twice and none left out, from one thread at a time.
    """

    def __init__(
        self, chain: Chain, doors: Sequence[Address], start: int, agreed: Callable[[Agreed], None]
    ) -> None:
        self._tally = Tally(chain)
        self._agreed = agreed
        self._next = start
        self._waiting: dict[int, Agreed] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads = [
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
        with self._lock:
            return tuple(self._tally.evidence)

    def __enter__(self) -> "Follower":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._lock:
            sockets = list(self._sockets)
        for connection in sockets:
            close_socket(connection)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _follow(self, door: Address) -> None:
        wait = _AGAIN_S[0]
        while not self._stopping.wait(wait):
            try:
                with contextlib.closing(connect(door, _SILENT_S)) as connection:
                    with self._lock:
                        self._sockets.add(connection)
                    try:
                        self._listen(connection)
                    finally:
                        with self._lock:
                            self._sockets.discard(connection)
                wait = _AGAIN_S[0]
            except (OSError, DataError) as problem:
                _LOG.debug("%s: %s", door, problem)
                wait = min(2 * wait, _AGAIN_S[1])
            except Exception:
                _LOG.exception("what was agreed on could not be passed on; it is tried again")
                wait = _AGAIN_S[1]

    def _listen(self, connection: socket.socket) -> None:
        connection.sendall(message({"do": "follow", "from": self._next}))
        framer = Framer()
        while not self._stopping.is_set() and (data := connection.recv(_CHUNK)):
            for told in framer.feed(data):
                form = read_message(told)
                if isinstance(form, dict) and "said" in form:
                    self._take(Reply.from_json(form))

    def _take(self, reply: Reply) -> None:
        with self._lock:
            agreed = self._tally.add(reply)
            if agreed is not None and agreed.height >= self._next:
                self._waiting[agreed.height] = agreed
            while self._next in self._waiting:
                # told before it counts: what raises is told again at the next reply
                self._agreed(self._waiting[self._next])
                del self._waiting[self._next]
                self._next += 1


def ask(door: Address, request: Any, timeout_s: float = 5.0) -> Any:
    """A node's answer to one request.

    Raises:
        OSError: the node is not there, or does not answer in time.
        DataError: it answers nonsense.
    """
    with contextlib.closing(connect(door, timeout_s)) as connection:
        connection.sendall(message(request))
        framer = Framer()
        while data := connection.recv(_CHUNK):
            for told in framer.feed(data):
                return read_message(told)
    raise ConnectionResetError(f"{door}: closed without an answer")


def entry_of(doors: Sequence[Address], agreed: Agreed) -> Entry:
    """The entry that was agreed on, from any node, with the signatures of those who agreed.

    Raises:
        DataError: no node has it; ask again.
    """
    for door in doors:
        try:
            line = base64.b64decode(ask(door, {"do": "entry", "height": agreed.height})["line"])
            entry = Entry.parse(line)
        except (OSError, DataError, KeyError, TypeError, ValueError):
            continue
        if entry.hash == agreed.head.hash and entry_flaw(entry, line) is None:
            return Entry(
                entry.height, entry.previous, entry.kind, entry.body, entry.hash, agreed.head.signatures
            )
    raise DataError(f"no node has the entry of height {agreed.height} that was agreed on; asked again")


def ledger_height(chain: Chain, doors: Sequence[Address]) -> int:
    """A height of the ledger that an honest node has reached: what f + 1 nodes say that they have.

    Raises:
        DataError: fewer than f + 1 nodes, with their members' signatures, answer.
    """
    keys = {member.name: member.public for member in chain.members}
    heights: dict[str, int] = {}
    for door in doors:
        try:
            said = Statement.from_json(ask(door, {"do": "status"})["said"])
            public = keys.get(said.member)
            holds = public is not None and said.holds(public)
        except (OSError, DataError, KeyError, TypeError):
            continue
        height = said.content.get("ledger")
        if holds and said.chain == chain.name and said.about == "status":
            heights[said.member] = height if type(height) is int else 0
    if len(heights) <= chain.f:
        raise DataError(
            f"{len(heights)} of {chain.n} nodes answer; {chain.f + 1} are needed. Start the others, or wait for them"
        )
    return sorted(heights.values(), reverse=True)[chain.f]
