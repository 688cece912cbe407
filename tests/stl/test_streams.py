"""Streams out of order, with copies, conflicts and silent entities: verdicts are those of the sorted stream."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stl import events, formulas

from phalanx.errors import DataError, UsageError
from phalanx.stl.event_monitor import EventMonitor, EventVerdict
from phalanx.stl.streams import Counts, Entity, EventStreams, Reject

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)
SECOND = 10**9
Event = tuple[Entity, int, dict[str, Any]]


def drawn(rng: random.Random) -> list[Event]:
    """Events of a few entities, in order of time; some have a value missing."""
    found: list[Event] = []
    for entity in ("web", "db", 7):
        signals = formulas.trace(rng, longest=15)
        at_ns = events.times(random.Random(5), len(signals["x"])).tolist()
        for i, at in enumerate(at_ns):
            sample = {name: float(values[i]) for name, values in signals.items() if rng.random() < 0.95}
            found.append((entity, at + rng.choice((0, 0, 1)), sample))
    return sorted(found, key=lambda event: event[1])


def shuffled(rng: random.Random, ordered: Sequence[Event], lateness_ns: int) -> list[Event]:
    """An order in which no event comes when one has come that is newer by more than the lateness."""
    left, found = list(ordered), []
    while left:
        ready = [event for event in left if event[1] <= left[0][1] + lateness_ns]
        found.append(left.pop(left.index(rng.choice(ready))))
        if rng.random() < 0.2:
            found.append(rng.choice([event for event in found if event[1] >= found[-1][1] - lateness_ns]))
    return found


def by_entity(verdicts: Sequence[tuple[Entity, EventVerdict]]) -> dict[Entity, list[EventVerdict]]:
    found: dict[Entity, list[EventVerdict]] = {}
    for entity, verdict in verdicts:
        found.setdefault(entity, []).append(verdict)
    return found


@settings(max_examples=40)
@given(SEEDS)
def test_any_order_within_the_lateness_gives_the_verdicts_of_the_sorted_stream(rng: random.Random) -> None:
    text, ordered = events.formula(rng, rng.randint(0, 3), bounded=rng.random() < 0.9), drawn(rng)
    missing = rng.choice(("unknown", "hold"))
    try:
        monitors = {entity: EventMonitor(text, missing=missing) for entity, *_ in ordered}
    except UsageError as error:
        assert "no bound" in str(error)
        return
    expected: dict[Entity, list[EventVerdict]] = {entity: [] for entity in monitors}
    for entity, at, sample in ordered:
        expected[entity] += monitors[entity].update(at, sample)
    for entity, monitor in monitors.items():
        expected[entity] += monitor.finish()
    lateness = rng.choice((0, 0.5, 3, 100))
    streams, told = EventStreams(text, lateness=lateness, missing=missing), []
    given_events = shuffled(rng, ordered, round(lateness * SECOND))
    for entity, at, sample in given_events:
        told += streams.take(entity, at, sample)
        if rng.random() < 0.1 and streams.watermark_ns is not None:
            told += streams.advance(streams.watermark_ns + round(lateness * SECOND))
    told += streams.finish()
    assert by_entity(told) == expected, text
    counts = streams.counts
    assert counts.taken == len(ordered) and counts.conflicting == counts.refused == counts.no_value == 0
    assert counts.late + counts.duplicate == len(given_events) - len(ordered)
    read = set(EventMonitor(text).formula.signals)
    assert counts.missing == sum(len(read - sample.keys()) for *_, sample in ordered)


def test_what_is_late_is_kept_aside() -> None:
    streams = EventStreams("F[0,5] x > 0", lateness=2)
    streams.take("a", 10 * SECOND, {"x": -1})
    assert streams.take("a", 8 * SECOND, {"x": -5}) == []
    assert streams.take("b", 8 * SECOND - 1, {"x": 4}) == [] and streams.watermark_ns == 8 * SECOND
    told = streams.take("b", 20 * SECOND, {"x": 1})
    assert told == [("a", EventVerdict(-1, -1, 0, 8 * SECOND)), ("a", EventVerdict(-1, -1, 1, 10 * SECOND))]
    assert streams.take("a", 8 * SECOND, {"x": -5}) == []
    assert streams.rejects == [
        Reject("late", "b", 8 * SECOND - 1, {"x": 4}),
        Reject("late", "a", 8 * SECOND, {"x": -5}),
    ]
    assert streams.counts == Counts(taken=3, late=2)


def test_copies_are_dropped_and_conflicts_kept_aside() -> None:
    aside: list[Reject] = []
    streams = EventStreams("x > 0", lateness=5, on_reject=aside.append)
    streams.take("a", 0, {"x": 1, "note": "first"})
    streams.take("a", 0, {"x": 1.0, "note": "again"})
    streams.take("a", 0, {"x": 2})
    streams.take("a", 0, {})
    streams.take("b", 0, {"x": 2})
    assert streams.finish() == [("a", EventVerdict(1, 1, 0, 0)), ("b", EventVerdict(2, 2, 0, 0))]
    assert aside == [Reject("conflicting", "a", 0, {"x": 2}), Reject("conflicting", "a", 0, {})]
    assert streams.rejects == [] and streams.counts == Counts(taken=2, duplicate=1, conflicting=2)


def test_a_silent_entity_is_not_waited_for() -> None:
    streams = EventStreams("alarm > 0 -> eventually[0,2] answer > 0", lateness=1)
    streams.take("silent", 0, {"alarm": 1, "answer": -1})
    assert streams.take("other", 3 * SECOND, {"alarm": -1, "answer": -1}) == []
    pending = streams.pending("silent")
    assert pending == EventVerdict(-1, math.inf, 0, 0) and streams.pending("other") is None
    assert streams.advance(3 * SECOND) == []
    assert streams.advance(3 * SECOND + 1) == [("silent", EventVerdict(-1, -1, 0, 0))]
    assert streams.pending("silent") is None and streams.pending("nobody") is None


def test_room_is_made_by_what_has_nothing_open() -> None:
    streams = EventStreams("F[0,10] x > 0", max_entities=2)
    streams.take("a", 0, {"x": -1})
    streams.take("b", 1 * SECOND, {"x": -2})
    assert streams.take("c", 2 * SECOND, {"x": 1}) == []
    assert streams.rejects == [Reject("refused", "c", 2 * SECOND, {"x": 1})]
    assert streams.take("c", 11 * SECOND, {"x": 1}) == [("a", EventVerdict(-1, -1, 0, 0))]
    assert streams.entities == ("b", "c")
    assert streams.take("a", 12 * SECOND, {"x": 3}) == [("b", EventVerdict(-2, -2, 0, SECOND))]
    assert streams.entities == ("c", "a")
    assert streams.finish() == [
        ("c", EventVerdict(1, 1, 0, 11 * SECOND)),
        ("a", EventVerdict(3, 3, 0, 12 * SECOND)),
    ]
    assert streams.counts == Counts(taken=4, refused=1, evicted=2)


@settings(max_examples=50)
@given(SEEDS)
def test_however_few_are_held_no_verdict_is_lost(rng: random.Random) -> None:
    streams = EventStreams(rng.choice(("F[0,3] x > 0", "x > 0", "next x > 0")), lateness=1, max_entities=3)
    told, at = [], 0
    for _ in range(120):
        at += rng.choice((0, SECOND // 2, SECOND))
        told += streams.take(
            rng.randint(0, 5), max(0, at - rng.choice((0, 0, SECOND, 2 * SECOND))), {"x": rng.random()}
        )
        assert len(streams.entities) <= 3
    told += streams.finish()
    assert len(told) == streams.counts.taken
    came = Counter(vars(streams.counts)) - Counter({"evicted": streams.counts.evicted})
    assert sum(came.values()) == 120


def test_one_entity_without_a_value_does_not_stop_the_others() -> None:
    streams = EventStreams("1 / x > 0")
    told = streams.take("a", 0, {"x": 1}) + streams.take("b", 1, {"x": 0}) + streams.take("a", 2, {"x": 2})
    told += streams.take("b", 3, {"x": 1})
    assert streams.failed == ("b",) and streams.pending("b") is None
    told += streams.finish()
    assert told == [("a", EventVerdict(1, 1, 0, 0)), ("a", EventVerdict(0.5, 0.5, 1, 2))]
    assert [each[:3] for each in streams.rejects] == [("no_value", "b", 1), ("no_value", "b", 3)]
    assert streams.counts == Counts(taken=4, no_value=2)


def test_memory_does_not_grow_with_the_stream() -> None:
    streams, sizes = EventStreams("G[0,3] x > 0", lateness=2), []
    for i in range(400):
        streams.take(i % 3, i * SECOND // 2, {"x": 1})
        waiting = sum(len(state.waiting) for state in streams._states.values())
        sizes.append(len(streams._waiting) + len(streams._due) + len(streams._idle) + waiting)
    assert 0 < max(sizes[200:]) <= max(sizes[:200])


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UsageError, match="lateness -1"):
        EventStreams("x", lateness=-1)
    with pytest.raises(UsageError, match="max_entities 0"):
        EventStreams("x", max_entities=0)
    streams = EventStreams("k = x > 0; k", missing="error")
    for sample, error, told in (
        ({}, DataError, "no value of 'x'"),
        ({"x": "a"}, DataError, "'x' at 0 ns"),
        ({"x": 1, "k": 2}, UsageError, "'k' is defined"),
    ):
        with pytest.raises(error, match=told):
            streams.take("a", 0, sample)
    assert streams.finish() == [] and streams.counts == Counts()
    with pytest.raises(DataError, match="has ended"):
        streams.take("a", 0, {"x": 1})
