"""The gateway's side: signs events, hands them to f + 1 nodes, waits for f + 1 equal answers."""

import base64
import contextlib
import itertools
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.asking import exchange, ledger_height
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.door import message
from phalanx.service.consensus.follower import Follower
from phalanx.service.consensus.listener import Address, connect, wake
from phalanx.service.consensus.replies import Agreed
from phalanx.service.consensus.submission import parse, submit_form
from phalanx.service.keys import SigningKey
from phalanx.service.records import LiveDecision, LiveEvent

__all__ = ["Client"]

_TIMEOUT_S = 10.0
_CLOSE_S = 5.0
_WORDS, _KINDS = 160, 64  # characters of a refusal's words, and different ones that are counted apart


@dataclass
class _Waiting:
    """A submission on its way."""

    events: tuple[LiveEvent, ...]
    raw: bytes
    base: int
    answer: "Future[tuple[LiveDecision, ...]]" = field(default_factory=Future)
    again: float = 0.0


class Client:
    """Submits events and gets the committee's decisions on them, while its block runs.

    A submission that brings no decision in time goes to all nodes, again and again, signed anew where it became too
    old: the chain orders the same events once.

    Args:
        chain: of the network.
        doors: addresses of the nodes' sockets.
        gateway: name under which this client submits.
        key: the gateway's.
        retry_s: how long to wait before submitting again.
        agreed: told of every batch that was agreed on, others' too (see ``Follower``); it may take its time.
        since: height of the ledger after which to listen: a gateway that was stopped hears what it missed; None: from
            now on.

    Attributes:
        counters: submissions that were refused, by the nodes' words, and how many were sent again (``again``).
    """

    def __init__(
        self,
        chain: Chain,
        doors: Sequence[Address],
        gateway: str,
        key: SigningKey,
        *,
        retry_s: float = 1.0,
        agreed: Callable[[Agreed], None] = lambda agreed: None,
        since: int | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._chain = chain
        self._gateway = gateway
        self._key = key
        self._retry_s = retry_s
        self._told = agreed
        self._since = since
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._stopping = threading.Event()
        self._senders = [_Sender(door, self.counters) for door in doors]
        self._turn = itertools.count()
        self._doors = doors
        self._follower: Follower | None = None
        self._retrier = threading.Thread(target=self._retry, name="retry", daemon=True)

    def __enter__(self) -> "Client":
        since = ledger_height(self._chain, self._doors) if self._since is None else self._since
        self._follower = Follower(self._chain, self._doors, since + 1, self._agreed).__enter__()
        for sender in self._senders:
            sender.thread.start()
        self._retrier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for sender in self._senders:
            sender.end()
        if self._follower is not None:
            self._follower.__exit__()
        deadline = time.monotonic() + _CLOSE_S  # a node may be silent in a handshake
        for thread in (self._retrier, *(sender.thread for sender in self._senders)):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left, self._waiting = self._waiting, {}
        for waiting in left.values():
            waiting.answer.set_exception(DataError("the client was closed before the committee decided"))

    @property
    def follower(self) -> Follower:
        """What follows the nodes' replies."""
        if self._follower is None:
            raise DataError("the client has not begun; use it in a with block")
        return self._follower

    def submit(self, events: Sequence[LiveEvent]) -> "Future[tuple[LiveDecision, ...]]":
        """Hands events to the committee.

        Args:
            events: at most ``SUBMISSION_EVENTS``.

        Returns:
            The decisions, once f + 1 nodes say the same; one an event.

        Raises:
            DataError: too many, none, or an attribute without a form in JSON.
        """
        base = self.follower.height
        raw = submit_form(self._key, self._gateway, self._chain.name, base, events)
        name = parse(raw).digest
        with self._lock:
            known = self._waiting.get(name)
            if known is not None:
                return known.answer
            waiting = _Waiting(tuple(events), raw, base, again=time.monotonic() + self._retry_s)
            waiting.answer.set_running_or_notify_cancel()  # it is on its way: nobody can call it back
            self._waiting[name] = waiting
        first = next(self._turn)
        for place in range(self._chain.f + 1):
            self._senders[(first + place) % len(self._senders)].send(raw)
        return waiting.answer

    def settled(self, ids: Set[str]) -> None:
        """Events were decided, and whoever follows has taken it in: what holds nothing else is not submitted any more.

        Else what was made a second time just before that would be sent until the nodes have forgotten the first.
        """
        with self._lock:
            over = [
                name
                for name, waiting in self._waiting.items()
                if all(event.id in ids for event in waiting.events)
            ]
            left = [self._waiting.pop(name) for name in over]
        for waiting in left:
            waiting.answer.set_exception(DataError("the committee had decided these events before"))

    def _agreed(self, agreed: Agreed) -> None:
        for name, _ in agreed.submissions:
            with self._lock:
                waiting = self._waiting.pop(name, None)
            where = agreed.of(name)
            if waiting is not None and where is not None:
                waiting.answer.set_result(agreed.decisions(waiting.events, where, self._chain.f))
        if agreed.submissions:  # else it is no batch: an epoch begins
            self._told(agreed)

    def _retry(self) -> None:
        while not self._stopping.wait(self._retry_s / 4):
            now = time.monotonic()
            with self._lock:
                late = [waiting for waiting in self._waiting.values() if waiting.again <= now]
            height = self.follower.height
            for waiting in late:
                waiting.again = now + self._retry_s
                if height - waiting.base > self._chain.window // 2:
                    waiting.raw = submit_form(
                        self._key, self._gateway, self._chain.name, height, waiting.events
                    )
                    waiting.base = height
                self.counters["again"] += 1
                for sender in self._senders:
                    sender.send(waiting.raw)


class _Sender:
    """Hands submissions to one node, in order; those that it cannot hand over are dropped, for they are sent again."""

    def __init__(self, door: Address, counters: Counter[str]) -> None:
        self.thread = threading.Thread(target=self._run, name=f"submit {door}", daemon=True)
        self._door = door
        self._counters = counters
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=256)
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._ended = False

    def send(self, raw: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(raw)

    def end(self) -> None:
        """Lets go of what is on its way; the thread ends soon after."""
        with self._lock:
            self._ended = True
            if self._connection is not None:
                wake(self._connection)
        with contextlib.suppress(queue.Full):  # then it need not be woken
            self._queue.put_nowait(None)

    def _run(self) -> None:
        while (raw := self._queue.get()) is not None and not self._ended:
            try:
                answer = self._ask(message({"do": "submit", "raw": base64.b64encode(raw).decode()}))
                if not answer["ok"]:
                    self._refused(answer["log"])
            except (OSError, DataError, KeyError, TypeError):
                self._counters["unreachable"] += 1
                self._close()
        self._close()

    def _refused(self, words: object) -> None:
        """Counts a refusal by its words, which may be a liar's: plain, short, and not without end."""
        name = f"refused: {ascii(words)[1:-1] if isinstance(words, str) else 'without words'}"[:_WORDS]
        self._counters[name if len(self._counters) < _KINDS or name in self._counters else "refused"] += 1

    def _ask(self, request: bytes) -> Any:
        deadline = time.monotonic() + _TIMEOUT_S
        connection = self._connection
        if connection is None:
            connection = connect(self._door, _TIMEOUT_S)
            with self._lock:
                self._connection = connection
                if self._ended:
                    raise ConnectionAbortedError
        return exchange(connection, request, deadline)

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
