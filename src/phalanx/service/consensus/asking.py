"""Asks nodes: one request, one answer, within a time and a length, whatever the node does."""

import base64
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.door import message, read_message
from phalanx.service.consensus.framing import Framer
from phalanx.service.consensus.listener import Address, connect
from phalanx.service.consensus.replies import Agreed
from phalanx.service.ledger_entry import ENTRY_LIMIT, Entry, entry_flaw
from phalanx.service.statements import Statement

__all__ = ["ANSWER_BYTES", "ask", "entry_of", "exchange", "ledger_height"]

ANSWER_BYTES = 1 << 20
"""Bytes of the longest answer to a request that is not for an entry."""

_ENTRY_BYTES = 4 * (ENTRY_LIMIT // 3 + 1) + 64  # the line in base64, and what stands around it
_CHUNK = 1 << 18
_PATIENCE_S = (1.0, 4.0, 16.0)  # with each door, at first and where none had it
_SLOW_S, _DEMOTED_S = 0.25, 60.0


def exchange(connection: socket.socket, request: bytes, deadline: float, limit: int = ANSWER_BYTES) -> Any:
    """The answer to a request over a connection.

    Args:
        connection: to a node; its timeout is changed.
        request: in its frame.
        deadline: of ``time.monotonic()``, for all of it: what comes drop by drop does not move it.
        limit: bytes of the longest answer.

    Raises:
        OSError: the node has gone, or has not answered by then.
        DataError: it answers nonsense, or too much.
    """
    left = memoryview(request)
    while left:
        connection.settimeout(_until(deadline))
        left = left[connection.send(left[:_CHUNK]) :]
    framer = Framer(limit)
    while True:
        connection.settimeout(_until(deadline))
        data = connection.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("closed without an answer")
        for told in framer.feed(data):
            return read_message(told)


def ask(door: Address, request: Any, timeout_s: float = 5.0, *, limit: int = ANSWER_BYTES) -> Any:
    """A node's answer to one request.

    Args:
        door: of the node.
        request: JSON (see ``door``).
        timeout_s: for all of it, from the connection to the answer's last byte.
        limit: bytes of the longest answer.

    Raises:
        OSError: the node is not there, or does not answer in time.
        DataError: it answers nonsense, or too much.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(connect(door, timeout_s)) as connection:
        return exchange(connection, message(request), deadline, limit)


class _Demoted:
    """Doors that kept somebody waiting, or gave out something else, within the last minute: they are asked last."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __contains__(self, door: Address) -> bool:
        return time.monotonic() < self._until.get(str(door), 0.0)

    def note(self, door: Address, slow: bool) -> None:
        if slow:
            self._until[str(door)] = time.monotonic() + _DEMOTED_S
        else:
            self._until.pop(str(door), None)


_DEMOTED = _Demoted()
_TURN = itertools.count()


def entry_of(doors: Sequence[Address], agreed: Agreed, *, ending: threading.Event | None = None) -> Entry:
    """The entry that was agreed on, from any node, with the signatures of those who agreed.

    Those who said that they have it are asked before the others, another one first each time; those that were slow or
    lied within the last minute come last. Each is given a second and, where none has the entry, more.

    Args:
        doors: of the nodes, by the places of their members.
        agreed: what was agreed on.
        ending: once it is set, no further node is asked.

    Raises:
        DataError: no node has it; ask again.
    """
    for patience_s in _PATIENCE_S:
        for door in _in_turn(doors, agreed):
            if ending is not None and ending.is_set():
                break
            began = time.monotonic()
            try:
                told = ask(door, {"do": "entry", "height": agreed.height}, patience_s, limit=_ENTRY_BYTES)
                line = base64.b64decode(told["line"])
                if not line:
                    continue  # it has not got so far
                entry = Entry.parse(line)
                right = entry.hash == agreed.head.hash and entry_flaw(entry, line) is None
            except (OSError, DataError, KeyError, TypeError, ValueError):
                right = False
            _DEMOTED.note(door, not right or time.monotonic() - began > _SLOW_S)
            if right:
                return Entry(
                    entry.height, entry.previous, entry.kind, entry.body, entry.hash, agreed.head.signatures
                )
    raise DataError(f"no node has the entry of height {agreed.height} that was agreed on; asked again")


def _in_turn(doors: Sequence[Address], agreed: Agreed) -> Iterator[Address]:
    """Doors in the order in which they are asked."""
    signed = [place for place in agreed.places if place < len(doors)]
    others = [place for place in range(len(doors)) if place not in signed]
    turn = next(_TURN)
    order = [doors[group[(turn + i) % len(group)]] for group in (signed, others) for i in range(len(group))]
    yield from sorted(order, key=lambda door: door in _DEMOTED)


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


def _until(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left
