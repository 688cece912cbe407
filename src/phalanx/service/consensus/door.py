"""The node's own socket: where gateways submit and everybody follows its signed replies.

Messages are JSON in frames (``framing``). A request says what to ``do``:

| request | answer |
|---|---|
| ``{"do": "submit", "raw": base64}`` | ``{"ok": bool, "log": text}``: whether the node's engine took it |
| ``{"do": "follow", "from": height}`` | replies from that height of the ledger on, then as they come, without end; \
in between ``{"height": height}``, where the ledger is |
| ``{"do": "entry", "height": height}`` | ``{"ok": bool, "line": base64}``: the ledger's entry |
| ``{"do": "status"}`` | where the node is |
| ``{"do": "engine"}`` | ``{"takes_part": bool, "height": height}``: its engine, and the last block there |
"""

import base64
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from phalanx.errors import DataError
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.framing import Framer, frame
from phalanx.service.consensus.listener import Address, Listener
from phalanx.service.consensus.replies import reply_to
from phalanx.service.consensus.submission import SUBMISSION_BYTES, submission_flaw
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import Entry, entry_line
from phalanx.service.ledger_files import read_entries

__all__ = ["DOOR_BYTES", "Door", "message", "read_message"]

DOOR_BYTES = 2 * SUBMISSION_BYTES
"""Bytes of the longest message to a node."""

_KEPT = 256
_BEAT_S = 2.0
_CHUNK = 1 << 16


def message(content: Any) -> bytes:
    """A message in its frame."""
    return frame(msgspec.json.encode(content))


def read_message(raw: bytes) -> Any:
    """The content of a message, without its frame.

    Raises:
        DataError: it is not JSON.

    Example:
        >>> read_message(b'{"do": "status"}')
        {'do': 'status'}
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise DataError(f"not a message in JSON ({ascii(str(problem))[:160]})") from None


class Door:
    """Serves a node's own socket while its block runs.

    Args:
        address: of the socket.
        chain: of the network.
        name: of the node's member.
        key: its key.
        folder: where its ledger lies.
        height: of the ledger now.
        forward: gives a submission to the node's engine; returns why it was refused, or None.
        status: where the node is, JSON.
        engine: what its engine says of itself, JSON.

    Attributes:
        counters: what was refused, by reason.
    """

    def __init__(
        self,
        address: Address,
        chain: Chain,
        name: str,
        key: SigningKey,
        folder: Path,
        *,
        height: int,
        forward: Callable[[bytes], str | None],
        status: Callable[[], Mapping[str, Any]],
        engine: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._chain = chain
        self._name = name
        self._key = key
        self._folder = folder
        self._forward = forward
        self._status = status
        self._engine = engine
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._height = height
        self._came = threading.Condition()
        self._closed = False
        self._listener = Listener(address, self._serve)

    @property
    def refused(self) -> Counter[str]:
        """Connections that were closed before they were served (see ``Listener``)."""
        return self._listener.refused

    def publish(self, entry: Entry) -> None:
        """Answers about an entry to all who follow."""
        told = self._reply(entry)
        with self._came:
            self._recent.append((entry.height, told))
            self._height = entry.height
            self._came.notify_all()

    def __enter__(self) -> "Door":
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._came:
            self._closed = True
            self._came.notify_all()
        self._listener.stop()

    def _serve(self, connection: socket.socket) -> None:
        framer = Framer(DOOR_BYTES)
        try:
            while data := connection.recv(_CHUNK):
                for request in framer.feed(data):
                    for answer in self._answers(read_message(request)):
                        connection.sendall(answer)
        except DataError as problem:
            self.counters["malformed"] += 1
            connection.sendall(message({"ok": False, "log": str(problem)}))

    def _answers(self, request: Any) -> Iterator[bytes]:
        what = request.get("do") if isinstance(request, dict) else None
        if what == "submit":
            flaw = self._submit(request.get("raw"))
            yield message({"ok": flaw is None, "log": flaw or ""})
        elif what == "follow":
            yield from self._follow(_height(request.get("from")))
        elif what == "entry":
            entry = next(self._entries(_height(request.get("height"))), None)
            line = "" if entry is None else base64.b64encode(entry_line(entry)).decode()
            yield message({"ok": entry is not None, "line": line})
        elif what == "status":
            yield message(self._status())
        elif what == "engine":
            yield message(self._engine())
        else:
            raise DataError("expected do: submit, follow, entry, status or engine")

    def _submit(self, raw: Any) -> str | None:
        try:
            content = base64.b64decode(raw, validate=True)
        except (TypeError, ValueError):
            raise DataError("raw is not base64") from None
        # what nobody may submit does not reach the engine
        flaw = submission_flaw(self._chain, content)
        if flaw is not None:
            self.counters["refused"] += 1
            return flaw
        return self._forward(content)

    def _entries(self, start: int) -> Iterator[Entry]:
        with self._came:
            if start > self._height:
                return iter(())
        return read_entries(self._folder, start)

    def _follow(self, start: int) -> Iterator[bytes]:
        """Replies from a height on: from memory where it has them, else from the ledger."""
        while True:
            with self._came:
                if self._height < start and not self._closed:
                    self._came.wait(_BEAT_S)
                if self._closed:
                    return
                height = self._height
                kept = [told for at, told in self._recent if at >= start]
                known = len(kept) == height - start + 1
            if height < start:
                yield message({"height": height})  # which fails where the other side has gone
            elif known:
                yield from kept
                start += len(kept)
            else:
                for entry in self._entries(start):
                    if self._name in entry.signatures:  # else it is from before this node took part
                        yield self._reply(entry)
                    start = entry.height + 1

    def _reply(self, entry: Entry) -> bytes:
        return message(reply_to(self._chain, self._name, self._key, entry).to_json())


def _height(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise DataError("a height of the ledger is a whole number from 1 on")
    return value
