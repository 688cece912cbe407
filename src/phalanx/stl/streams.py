"""Streams as they come: many entities in one stream, events out of order, twice, in conflict or with values missing."""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import number, whole_number
from phalanx.stl.event_monitor import EventMonitor, EventVerdict, time_in_ns
from phalanx.stl.formula import Formula
from phalanx.stl.parser import parse

__all__ = ["Counts", "Entity", "EventStreams", "Reject"]

Entity = str | int


class Reject(NamedTuple):
    """An event that was kept aside.

    Attributes:
        reason: late, conflicting, refused or no_value, as in ``Counts``.
        entity, time_ns, sample: the event, as it came.
    """

    reason: str
    entity: Entity
    time_ns: int
    sample: Mapping[str, Any]


@dataclass(frozen=True)
class Counts:
    """What became of the events; all that came are taken, late, duplicate, conflicting or refused.

    Attributes:
        taken: waiting for the watermark or already used.
        late: older than the watermark when they came.
        duplicate: of an entity, time and values that are waiting.
        conflicting: of an entity and time that are waiting, with other values.
        refused: of a new entity for which there was no room.
        missing: values that events lacked that were taken.
        no_value: taken, but arithmetic had no result when they, or earlier ones of their entity, were used.
        evicted: entities that made room for others.
    """

    taken: int = 0
    late: int = 0
    duplicate: int = 0
    conflicting: int = 0
    refused: int = 0
    missing: int = 0
    no_value: int = 0
    evicted: int = 0


class _State:
    """What is held of an entity."""

    def __init__(self, entity: Entity, monitor: EventMonitor) -> None:
        self.entity, self.monitor = entity, monitor
        self.waiting: dict[int, dict[str, float]] = {}
        self.is_due = False  # it has an entry in the heap of deadlines
        self.failed = False  # arithmetic had no result


class EventStreams:
    """Watches one formula for each entity of a stream whose events may come late.

    The watermark is the greatest event time seen, of whatever entity, less ``lateness``; it never goes back. An event
    waits until the watermark has passed it, then all that wait are used in order of time: so any order within the
    lateness gives the verdicts of the sorted stream. A silent entity is not waited for: the watermark closes its
    windows.

    - late (older than the watermark): kept aside; the verdicts that were given stand. A copy of what has been used
      already is late too.
    - duplicate (entity, time and values of a waiting event): dropped.
    - conflicting (entity and time of a waiting event, other values): the first stands, this one is kept aside.
    - missing values: as ``EventMonitor`` has it.
    - no value (a division by zero): there are no more verdicts on the entity, and its events are kept aside.

    Each of them is counted. A clock far ahead makes all others' events late: check times where they are not trusted.

    Args:
        text: the formula, or its text.
        lateness: seconds that an event may come after others that are newer than it, from 0.
        missing: unknown, hold or error.
        max_entities: at most so many are held. A new one takes the place of the one that has had nothing open or
            waiting for longest, which begins anew should it come back; where there is none it is refused.
        on_reject: is told of each event that is kept aside; without it they are collected in ``rejects``.

    Raises:
        UsageError: those of ``EventMonitor``; a lateness or number of entities that is none.

    Example:
        >>> streams = EventStreams("alarm > 0 -> eventually[0,2] answer > 0", lateness=1.0)
        >>> second = 10**9
        >>> streams.take("web", 1 * second, {"alarm": 1, "answer": -1})
        []
        >>> streams.take("db", 3 * second, {"alarm": -1, "answer": -1})
        []
        >>> streams.take("web", 2 * second, {"alarm": -1, "answer": 4})
        []
        >>> streams.take("db", 5 * second, {"alarm": -1, "answer": -1})
        [('web', EventVerdict(lo=4.0, hi=4.0, sample=0, time_ns=1000000000))]
        >>> streams.counts.taken, streams.watermark_ns
        (4, 4000000000)

    Source: Akidau et al., "The dataflow model", VLDB 2015 (event time and watermarks).
    """

    def __init__(
        self,
        text: str | Formula,
        *,
        lateness: float = 0.0,
        missing: str = "unknown",
        max_entities: int | None = None,
        on_reject: Callable[[Reject], object] | None = None,
    ) -> None:
        if not 0.0 <= number(lateness) < 9e9:
            raise UsageError(f"lateness {lateness!r}: expected seconds from 0")
        if max_entities is not None:
            max_entities = whole_number("max_entities", max_entities, 1)
        if on_reject is not None and not callable(on_reject):
            raise UsageError(f"on_reject {on_reject!r}: expected a function of a Reject, or None")
        self.formula = parse(text)
        self.rejects: list[Reject] = []
        self._max, self._on_reject = max_entities, on_reject or self.rejects.append
        self._model = EventMonitor(self.formula, missing=missing)  # checks what comes
        self._lateness_ns = round(number(lateness) * 1e9)
        self._watermark_ns: int | float = -math.inf
        self._counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
        self._states: dict[Entity, _State] = {}
        self._idle: dict[Entity, None] = {}  # nothing open or waiting, longest first
        self._waiting: list[tuple[int, int, _State]] = []
        self._due: list[tuple[int, int, _State]] = []
        self._order = itertools.count()  # no two entries of a heap are equal
        self._ended = False

    @property
    def watermark_ns(self) -> int | None:
        """Everything before it has been used; None before the first event."""
        return int(self._watermark_ns) if math.isfinite(self._watermark_ns) else None

    @property
    def counts(self) -> Counts:
        """What has become of the events so far."""
        return Counts(**self._counts)

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Those that are held."""
        return tuple(self._states)

    @property
    def failed(self) -> tuple[Entity, ...]:
        """Those of which arithmetic had no result."""
        return tuple(entity for entity, state in self._states.items() if state.failed)

    def pending(self, entity: Entity) -> EventVerdict | None:
        """What is known of an entity's oldest used event whose verdict is open; None if none is."""
        state = self._states.get(entity)
        return None if state is None or state.failed else state.monitor.pending

    def take(
        self, entity: Entity, time_ns: SupportsIndex, sample: Mapping[str, Any]
    ) -> list[tuple[Entity, EventVerdict]]:
        """Takes an event in, and returns the verdicts, of any entity, that have become known; each entity's in order.

        Raises:
            UsageError: a time that is no whole number, a name that the formula defines.
            DataError: a value that is no number, a missing one where that is an error (the event is not taken in).
        """
        self._goes_on()
        at = time_in_ns(time_ns)
        values = self._model.values(at, sample)
        if at < self._watermark_ns:
            self._reject("late", entity, at, sample)
            return []
        state = self._states.get(entity)
        if state and at in state.waiting:
            if state.waiting[at] == values:
                self._counts["duplicate"] += 1
            else:
                self._reject("conflicting", entity, at, sample)
            return []
        found = self._pass(at - self._lateness_ns)
        state = self._states.get(entity) or self._new(entity)
        if state is None:
            self._reject("refused", entity, at, sample)
            return found
        self._idle.pop(entity, None)
        self._counts["taken"] += 1
        self._counts["missing"] += len(self._model.signals) - len(values)
        state.waiting[at] = values
        heapq.heappush(self._waiting, (at, next(self._order), state))
        return found

    def advance(self, time_ns: SupportsIndex) -> list[tuple[Entity, EventVerdict]]:
        """Says what time it is: the watermark moves as by an event of then."""
        self._goes_on()
        return self._pass(time_in_ns(time_ns) - self._lateness_ns)

    def finish(self) -> list[tuple[Entity, EventVerdict]]:
        """Ends the stream: what waits is used, and all verdicts that are open close as whole traces have them."""
        self._goes_on()
        found = self._pass(math.inf)
        for state in self._states.values():
            found += self._work(state, state.monitor.finish)
        self._ended = True
        return found

    def _goes_on(self) -> None:
        if self._ended:
            raise DataError("the stream has ended; start a new one")

    def _reject(self, reason: str, entity: Entity, time_ns: int, sample: Mapping[str, Any]) -> None:
        self._counts[reason] += 1
        self._on_reject(Reject(reason, entity, time_ns, sample))

    def _new(self, entity: Entity) -> _State | None:
        """A place for an entity, None if there is no room."""
        if self._max is not None and len(self._states) >= self._max:
            if not self._idle:
                return None
            longest = next(iter(self._idle))
            del self._idle[longest], self._states[longest]
            self._counts["evicted"] += 1
        state = _State(entity, EventMonitor(self.formula, missing=self._model.missing))
        self._states[entity] = state
        return state

    def _pass(self, watermark_ns: int | float) -> list[tuple[Entity, EventVerdict]]:
        """Moves the watermark: uses the events that it passes, then closes the windows that end before it."""
        if watermark_ns <= self._watermark_ns:
            return []
        self._watermark_ns = watermark_ns
        found = []
        while self._waiting and self._waiting[0][0] < watermark_ns:
            at, _, state = heapq.heappop(self._waiting)
            values = state.waiting.pop(at)
            found += self._work(state, state.monitor.update, at, values)
            if state.failed:
                self._reject("no_value", state.entity, at, values)
        while self._due and self._due[0][0] < watermark_ns < math.inf:
            _, _, state = heapq.heappop(self._due)
            state.is_due = False
            found += self._work(state, state.monitor.advance, int(watermark_ns) - 1)
        return found

    def _work(
        self, state: _State, work: Callable[..., list[EventVerdict]], *given: Any
    ) -> list[tuple[Entity, EventVerdict]]:
        """Has a monitor do something, and sees what it waits for then."""
        verdicts = []
        if not state.failed:
            try:
                verdicts = work(*given)
            except DataError:
                state.failed = True
        monitor, entity = state.monitor, state.entity
        due = None if state.failed or state.is_due else monitor.due_ns
        if due is not None:
            state.is_due = True
            heapq.heappush(self._due, (due, next(self._order), state))
        if not state.waiting and (state.failed or not monitor.open) and self._states.get(entity) is state:
            self._idle.pop(entity, None)
            self._idle[entity] = None
        return [(entity, verdict) for verdict in verdicts]
