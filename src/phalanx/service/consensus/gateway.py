"""A network's committee as the desk asks it: events go out, what was agreed on comes back in the ledger's order."""

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.follower import entry_of
from phalanx.service.consensus.network import Network
from phalanx.service.consensus.replies import Agreed
from phalanx.service.consensus.submission import SUBMISSION_BYTES
from phalanx.service.ledger_bodies import event_to_json
from phalanx.service.ledger_entry import Entry
from phalanx.service.records import LiveEvent

__all__ = ["Gateway"]

_LOG = logging.getLogger("phalanx")
_ENTRIES = 64  # agreed on and not yet taken; the nodes keep the rest
_EVENTS = 256
_BYTES = SUBMISSION_BYTES // 2  # in base64 and with its signature a submission is longer than its events
_TICK_S = 0.2
_SILENT = 8  # batches in a row without a vote of a member


class Gateway:
    """Submits events to a network and hands out its entries (``service.remote.Remote``).

    Args:
        network: whose committee; it runs by itself.
        patience_s: how long an answer may take before the committee counts as being without a quorum.

    Attributes:
        n, f, patience_s, out: see ``Remote``.
        network: name of its first chain, which stays when members are replaced.
    """

    def __init__(self, network: Network, *, patience_s: float = 5.0) -> None:
        chain = network.chain
        self.n, self.f = chain.n, chain.f
        self.network = chain.epochs[0].chain if chain.epochs else chain.name
        self.patience_s = patience_s
        self.out = False
        self._missed = [0] * self.n
        self._network = network
        self._asked: set[str] = set()
        self._entries: queue.Queue[Entry] = queue.Queue(_ENTRIES)
        self._first: Entry | None = None
        self._closing = threading.Event()
        self._client: Client | None = None

    def begin(self, height: int) -> None:
        """See ``Remote``."""
        self._client = self._network.client(agreed=self._agreed, since=height).__enter__()

    def close(self) -> None:
        """Lets go of the network."""
        self._closing.set()
        if self._client is not None:
            self._client.__exit__()
            self._client = None

    def ask(self, events: Sequence[LiveEvent]) -> list[str]:
        """See ``Remote``. Without a quorum one submission alone is on its way, which tells when there is one again."""
        refused: list[str] = []
        if self._client is None or (self.out and self._asked):
            return refused
        part: list[LiveEvent] = []
        size = 0
        for event in events:
            if event.id in self._asked:
                continue
            length = len(canonical(event_to_json(event)))
            if length > _BYTES:
                _LOG.error("an event of %d bytes is too long for the committee; at most %d", length, _BYTES)
                refused.append(event.id)
                continue
            if part and (len(part) >= _EVENTS or size + length > _BYTES):
                refused += self._submit(part)
                part, size = [], 0
            part.append(event)
            size += length
        if part:
            refused += self._submit(part)
        return refused

    def next(self, wait_s: float) -> Entry | None:
        """See ``Remote``."""
        if self._first is None:
            try:
                self._first = self._entries.get(timeout=wait_s) if wait_s > 0 else self._entries.get_nowait()
            except queue.Empty:
                return None
            self.out = False
            models = self._first.body["consensus"]["models"]
            self._missed = [
                before + 1 if model is None else 0 for before, model in zip(self._missed, models, strict=True)
            ]
        return self._first

    def done(self) -> None:
        """See ``Remote``."""
        if self._first is not None:
            ids = {event["id"] for event in self._first.body["events"]}
            self._asked -= ids
            if self._client is not None:
                self._client.settled(ids)
            self._first = None

    def lost(self) -> None:
        """See ``Remote``."""
        if self._first is not None or not self._entries.empty():
            return  # it has just come
        if not self.out:
            _LOG.error("no quorum: the committee has not answered in %g s", self.patience_s)
        self.out = True

    def evidence(self) -> Sequence[dict[str, Any]]:
        """See ``Remote``."""
        return () if self._client is None else self._client.follower.evidence

    @property
    def voting(self) -> int:
        """Members of whom a vote was received lately; a slow one misses some batches."""
        return sum(missed < _SILENT for missed in self._missed)

    def notes(self) -> list[str]:
        """What an operator should look at: codes of a closed list."""
        found = ["no-quorum"] if self.out else []
        return found + (["member-silent"] if self.voting < self.n else [])

    def _submit(self, events: Sequence[LiveEvent]) -> list[str]:
        """Submits events together; returns the ids of those that nobody would order."""
        assert self._client is not None
        try:
            self._client.submit(events)
        except DataError as problem:
            if len(events) > 1:
                return [name for event in events for name in self._submit([event])]
            _LOG.error("an event cannot be submitted: %s", problem)
            return [events[0].id]
        self._asked.update(event.id for event in events)
        return []

    def _agreed(self, agreed: Agreed) -> None:
        entry: Entry | None = None
        while not self._closing.is_set():
            try:
                entry = entry or entry_of(self._network.doors, agreed)
                self._entries.put(entry, timeout=_TICK_S)
                break
            except queue.Full:
                continue
            except DataError:  # all are too busy to hand it over
                self._closing.wait(_TICK_S)
        if self.out:
            _LOG.warning("the committee answers again")
        self.out = False
