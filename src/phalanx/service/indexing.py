"""What the desk decides goes into the store, in a thread of its own, so that a slow database slows no decision.

The ledger is the truth: what the store lacks, after a kill or while its database was away, is read from there.
Commands go before all else, whatever there is to catch up with; they wait in memory until the store has taken them, and
after a kill the desk gives them again.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.errors import PhalanxError
from phalanx.service.commands import Command
from phalanx.service.http_asks import Query
from phalanx.service.ledger import Entry, read_entries
from phalanx.service.ledger_bodies import counted, decisions_of, events_of
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.replies import Decision, Decisions, decision_reply
from phalanx.service.safety import NOTHING, Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.store import Decided, Found, Store
from phalanx.verdicts import Verdict

__all__ = ["Indexer", "StoreIndex"]

_LOG = logging.getLogger("phalanx")
_BATCHES = 256  # that wait; beyond them the ledger is read
_AT_ONCE = 512  # events of a transaction, about
_GATHER_S = 0.02  # unless somebody waits: who was answered first does not compete with what comes after
_LONGEST_PAUSE_S = 30.0
_FORGET_S = 3600.0
_STUCK_S = 60.0


@dataclass
class _Commands:
    """Commands on their way: of all entries up to a height."""

    height: int
    commands: Sequence[Command]


@dataclass
class _Read:
    """A batch read from the ledger, and what its events led to, as far as the entries after it tell."""

    height: int
    body: Mapping[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def note(self, entry: Entry) -> None:
        """An entry that follows the batch, which may tell what one of its events led to."""
        body = entry.body
        if entry.kind == "operator" and body.get("height") == self.height and "would" in body:
            restriction = body["restriction"]["id"] if "restriction" in body else ""
            self.outcomes[body["event"]] = Outcome(
                Effect(body["effect"]), Effect(body["would"]), tuple(body["reasons"]), restriction
            )

    def decided(self) -> Decided:
        """The batch with what it led to, as far as that was told."""
        events, decisions = counted(self.body, events_of(self.body), decisions_of(self.body))
        outcomes = [
            NOTHING if each.verdict is Verdict.ALLOW and each.quorum else self.outcomes.get(each.event_id)
            for each in decisions
        ]
        return Decided(self.height, events, decisions, outcomes)


class Indexer:
    """Keeps a store up with a ledger.

    Args:
        store: from now on written to by this alone.
        ledger: its folder.
        height: of the ledger's last entry.
        put: ``Outbox.put``: takes commands, each once, by its key, and the height up to which there are no others.
        wall_ns: the time, for retention.
        days: how long decisions are kept; 0: for ever.

    Attributes:
        problem: why the store is behind; empty while it is not.
    """

    def __init__(
        self,
        store: Store,
        ledger: Path,
        height: Callable[[], int],
        *,
        put: Callable[[Sequence[Command], int], None],
        wall_ns: Callable[[], int] = time.time_ns,
        days: float = 0.0,
    ) -> None:
        self.problem = ""
        self._store, self._ledger, self._height = store, ledger, height
        self._put, self._wall_ns, self._days = put, wall_ns, days
        self._batches: deque[Decided] = deque()
        self._commands: deque[_Commands] = deque()
        self._sent, self._taken = 0, 0  # how often there were commands; how often they were put
        self._behind = True
        self._given, self._indexed = height(), 0
        self._stopping = self._hurried = False
        self._pause_s, self._next_forget_s, self._progress_s = 0.0, 0.0, time.monotonic()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)

    @property
    def behind(self) -> bool:
        """Whether the database fails, or has taken nothing for long that waits for it."""
        return bool(self.problem) or (self.lag > 0 and time.monotonic() - self._progress_s > _STUCK_S)

    @property
    def lag(self) -> int:
        """Entries of the ledger between what the store has and the latest batch."""
        return max(0, self._given - self._indexed)

    def start(self) -> None:
        """Begins, with what the store lacks."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Ends once all that waits is in the store; whether it was in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def index(
        self,
        height: int,
        events: Sequence[LiveEvent],
        decisions: Sequence[LiveDecision],
        outcomes: Sequence[Outcome | None],
    ) -> None:
        """Takes a decided batch."""
        with self._changed:
            if not self.lag:
                self._progress_s = time.monotonic()
            self._given = height
            if len(self._batches) >= _BATCHES:
                self._behind = True
            else:
                self._batches.append(Decided(height, events, decisions, outcomes))
            self._changed.notify_all()

    def look(self) -> None:
        """Part of what the ledger has was not given: the ledger is read."""
        with self._changed:
            self._behind = True
            self._given = max(self._given, self._height())
            self._changed.notify_all()

    def send(self, commands: Sequence[Command]) -> None:
        """Takes commands, in order."""
        if commands:
            with self._changed:
                self._commands.append(_Commands(self._height(), commands))
                self._sent += 1
                self._hurried = True  # who is to be stopped goes on meanwhile
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until the store has the batches and commands given so far, unless it fails; whether it has."""
        with self._changed:
            goal, sent, self._hurried = self._given, self._sent, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._reached(goal, sent) or bool(self.problem), timeout_s)
            return self._reached(goal, sent)

    def _reached(self, height: int, sent: int) -> bool:
        return self._indexed >= height and self._taken >= sent

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._wanted, self._pause_s or 60.0)
                self._changed.wait_for(lambda: self._hurried or self._stopping, _GATHER_S)
                self._hurried = False
                if self._stopping and (self._pause_s or not self._wanted_of_store()):
                    return
            try:
                self._work()
                if self._days and time.monotonic() >= self._next_forget_s:
                    self._store.forget(self._days, self._wall_ns(), between=self._put_commands)
                    self._next_forget_s = time.monotonic() + _FORGET_S
                self._pause_s, self.problem = 0.0, ""
            except _StoppedError:
                return
            except Exception as problem:
                self._wait_a_while(problem)

    def _wanted_of_store(self) -> bool:
        return bool(self._batches or self._commands) or self._behind

    def _wanted(self) -> bool:
        return self._stopping or (self._wanted_of_store() and not self._pause_s)

    def _wait_a_while(self, problem: Exception) -> None:
        said = str(problem) if isinstance(problem, PhalanxError) else type(problem).__name__
        if not self.problem:
            _LOG.error("the store is behind: %s", said)
        with self._changed:
            self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or 0.5)
            self.problem, self._behind = said, True
            self._changed.notify_all()

    def _work(self) -> None:
        """Does all that waits."""
        while True:
            self._put_commands()
            with self._changed:
                behind, self._behind = self._behind, False
                if behind:
                    self._batches.clear()  # they are in the ledger
                batches, goal = self._next_batches(), self._given
            if behind:
                self._catch_up(goal)
            elif batches:
                self._store.insert_many(batches)
                self._has(batches[-1].height)
                with self._changed:
                    for _ in batches:
                        self._batches.popleft()
            elif not self._commands:
                return

    def _put_commands(self) -> None:
        while self._commands:
            item = self._commands[0]
            self._put(item.commands, item.height)
            with self._changed:
                self._commands.popleft()  # by this thread alone
                self._taken += 1
                self._changed.notify_all()

    def _next_batches(self) -> list[Decided]:
        """Batches that one transaction stores. Called with the lock."""
        found: list[Decided] = []
        events = 0
        for item in self._batches:
            if found and events + len(item.events) > _AT_ONCE:
                break
            found.append(item)
            events += len(item.events)
        return found

    def _catch_up(self, goal: int) -> None:
        """Reads from the ledger what the store lacks.

        Args:
            goal: the last batch that was given: what later ones lead to is not all there yet.
        """
        batch: _Read | None = None
        ready: list[Decided] = []
        read = 0
        self._has(self._store.last_height())
        for entry in read_entries(self._ledger, self._indexed + 1):
            if self._stopping:
                raise _StoppedError  # the next start goes on from what the store has
            self._put_commands()
            if entry.kind == "batch":
                if entry.height > goal:
                    break
                if batch is not None:
                    ready.append(batch.decided())
                if sum(len(each.events) for each in ready) >= _AT_ONCE:
                    self._store.insert_many(ready)
                    self._has(ready[-1].height)
                    ready = []
                batch = _Read(entry.height, entry.body)
            elif batch is not None:
                batch.note(entry)
            read = entry.height
        if batch is not None:
            ready.append(batch.decided())
        if ready:
            self._store.insert_many(ready)
        self._has(read)

    def _has(self, height: int) -> None:
        with self._changed:
            self._indexed, self._progress_s = max(self._indexed, height), time.monotonic()
            self._changed.notify_all()


class _StoppedError(Exception):
    """The service ends while the ledger is read."""


class StoreIndex:
    """Decisions as the HTTP interface asks for them.

    Args:
        store: where they are.
        indexer: who brings it up; it is waited for a moment, so that what was answered is found.
    """

    def __init__(self, store: Store, indexer: Indexer, wait_s: float = 1.0) -> None:
        self._store, self._indexer, self._wait_s = store, indexer, wait_s

    def decision(self, event_id: str) -> Decision | None:
        """The decision on an event; None where there is none."""
        self._indexer.wait(self._wait_s)
        found = self._store.by_id(event_id)
        return None if found is None else _reply(found)

    def page(self, query: Query) -> Decisions:
        """A page of decisions."""
        self._indexer.wait(self._wait_s)
        page = self._store.find(
            host=query.host or None,
            subject=query.subject or None,
            since_ns=query.since_ns or None,
            verdict=query.least,
            after=query.after,
            limit=query.limit,
        )
        return Decisions([_reply(found) for found in page.items], page.after or None)


def _reply(found: Found) -> Decision:
    return decision_reply(
        found.decision,
        found.height,
        effect=found.effect or None,
        would=found.would or None,
        reasons=found.reasons,
        restriction=found.restriction,
        restriction_state=found.state or None,
    )
