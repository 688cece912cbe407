"""Restrictions end in time whatever the clocks do, and go through their states in order."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.hands import Hands

from phalanx.errors import DataError
from phalanx.service.actors import Actor
from phalanx.service.clock import Moment, SystemClock, Timeline
from phalanx.service.records import LiveEvent
from phalanx.service.restrictions import Restriction, State, Target, restriction_id, target_of
from phalanx.types import Verdict

DURATION = 1_000

passes = st.tuples(st.just("pass"), st.integers(0, 300))
jumps = st.tuples(st.just("jump"), st.integers(-5_000, 5_000))
reboots = st.tuples(st.just("reboot"), st.integers(0, 300))


def active(now: Moment, duration_ns: int = DURATION) -> Restriction:
    asked = Restriction("r", Target("h", "p"), Verdict.BLOCK, "e", 1, duration_ns, now, wait_ns=400)
    return asked.apply(now)


@given(st.lists(passes | jumps, max_size=12))
def test_no_jump_of_the_wall_clock_makes_a_restriction_last_longer(steps: list[tuple[str, int]]) -> None:
    hands = Hands()
    timeline = Timeline(hands)
    restriction = active(timeline.now())
    passed = 0
    for what, amount in steps:
        if what == "pass":
            hands.pass_ns(amount)
            passed += amount
        else:
            hands.wall += amount
        remaining = restriction.remaining_ns(timeline.now())
        assert 0 <= remaining <= max(0, DURATION - passed)
        assert restriction.over(timeline.now()) or passed < DURATION


@given(st.lists(passes | reboots, max_size=12))
def test_with_an_honest_wall_clock_it_lasts_exactly_as_long_as_meant_over_restarts(
    steps: list[tuple[str, int]],
) -> None:
    hands = Hands()
    timeline = Timeline(hands)
    restriction = active(timeline.now())
    passed = 0
    for what, amount in steps:
        last = timeline.now()
        if what == "pass":
            hands.pass_ns(amount)
        else:
            hands.reboot(amount)
            timeline = Timeline(hands, last)
        passed += amount
        assert restriction.remaining_ns(timeline.now()) == max(0, DURATION - passed)


@given(st.lists(passes | jumps | reboots, max_size=16))
def test_over_restarts_at_most_what_remained_when_it_was_saved(steps: list[tuple[str, int]]) -> None:
    hands = Hands()
    timeline = Timeline(hands)
    restriction = active(timeline.now())
    running = 0  # time that passed while the service ran: whatever jumps, at least this much is over
    for what, amount in steps:
        if what == "pass":
            hands.pass_ns(amount)
            running += amount
        elif what == "jump":
            hands.wall += amount
        else:
            saved = timeline.now()
            remained = restriction.remaining_ns(saved)
            hands.reboot(amount)
            timeline = Timeline(hands, saved)
            assert restriction.remaining_ns(timeline.now()) <= remained
        assert restriction.remaining_ns(timeline.now()) <= max(0, DURATION - running)


def test_a_clock_set_back_at_the_restart_does_not_lengthen_it() -> None:
    hands = Hands()
    timeline = Timeline(hands)
    restriction = active(timeline.now())
    hands.pass_ns(600)
    saved = timeline.now()
    hands.reboot()
    hands.wall -= 10**15
    assert restriction.remaining_ns(Timeline(hands, saved).now()) == 400


def test_a_clock_set_forward_shortens_it() -> None:
    hands = Hands()
    timeline = Timeline(hands)
    restriction = active(timeline.now())
    hands.wall += 999
    assert restriction.remaining_ns(timeline.now()) == 1
    hands.wall += 1
    assert restriction.over(timeline.now())


def test_steady_time_never_goes_back_even_if_a_clock_that_must_not_does() -> None:
    hands = Hands()
    timeline = Timeline(hands)
    hands.monotonic += 10
    assert timeline.now().steady_ns == 10
    hands.monotonic -= 7
    assert timeline.now().steady_ns == 10
    hands.monotonic += 8
    assert timeline.now().steady_ns == 11


def test_waiting_has_a_time_of_its_own_and_the_duration_begins_with_approval() -> None:
    asked = Restriction("r", Target("h", "p"), Verdict.QUARANTINE, "e", 1, 1_000, Moment(0, 0), wait_ns=400)
    assert asked.remaining_ns(Moment(399, 399)) == 1
    assert asked.over(Moment(400, 0)) and asked.over(Moment(0, 400))
    begun = asked.apply(Moment(390, 390), by="ann", why="seen it")
    assert (begun.state, begun.by, begun.why) == (State.ACTIVE, "ann", "seen it")
    assert begun.deadline_wall_ns == 1_390
    assert not begun.over(Moment(1_389, 1_389))
    assert begun.over(Moment(1_390, 0)) and begun.over(Moment(0, 1_390))


ENDS = {
    State.PENDING: {State.REFUSED, State.EXPIRED},
    State.ACTIVE: {State.LIFTED, State.EXPIRED},
    State.LIFTED: set(),
    State.EXPIRED: set(),
    State.REFUSED: set(),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("end", State)
def test_only_ends_that_follow_are_possible(state: State, end: State) -> None:
    restriction = dataclasses.replace(active(Moment(0, 0)), state=state)
    if end in ENDS[state]:
        ended = restriction.end(end, Moment(7, 7), by="ann", why="enough")
        assert (ended.state, ended.ended, ended.by, ended.why) == (end, Moment(7, 7), "ann", "enough")
        assert not ended.open and not ended.over(Moment(10**9, 10**9))
    else:
        with pytest.raises(ValueError, match=f"restriction r is {state.value}"):
            restriction.end(end, Moment(7, 7))


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_only_what_waits_becomes_active(state: State) -> None:
    with pytest.raises(ValueError, match="expected pending"):
        dataclasses.replace(active(Moment(0, 0)), state=state).apply(Moment(1, 1))


names = st.sampled_from(["", "a", "b"])
targets = st.builds(Target, st.sampled_from("hi"), st.sampled_from("pq"), names, names)


@given(targets, targets)
def test_overlap_is_symmetric_and_holds_for_every_part(one: Target, other: Target) -> None:
    assert one.overlaps(other) == other.overlaps(one)
    assert one.overlaps(one) and one.within(one)
    if one.within(other):
        assert one.overlaps(other)
    # an oracle by enumeration: what each target covers of all (object, kind) pairs of a process
    pairs = {(o, k) for o in ("", "a", "b") for k in ("", "a", "b")}

    def covered(target: Target) -> set[tuple[str, str, str, str]]:
        own = pairs if target.whole else {(target.object, target.kind)}
        return {(target.host, target.subject, *pair) for pair in own}

    assert one.overlaps(other) == bool(covered(one) & covered(other))
    assert one.within(other) == (covered(one) <= covered(other))


def test_a_descendant_is_within_the_quarantine_of_an_ancestor_but_not_within_its_block() -> None:
    child = Target("h", "child", "/x")
    assert child.within(Target("h", "grandparent"), ("parent", "grandparent"))
    assert not child.within(Target("h", "stranger"), ("parent", "grandparent"))
    assert not child.within(Target("i", "parent"), ("parent",))
    assert not child.overlaps(Target("h", "parent", "/x"), ("parent",))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"path": "/a"}, Target("h", "p", "/a")),
        ({"path": "/a", "object": "10.0.0.1:22"}, Target("h", "p", "10.0.0.1:22")),
        ({"object": "", "path": None}, Target("h", "p", kind="FORK")),
        ({}, Target("h", "p", kind="FORK")),
        ({"object": 17}, Target("h", "p", "17")),
    ],
)
def test_a_block_is_of_what_the_event_was_about(attributes: dict, expected: Target) -> None:
    event = LiveEvent("e", 0, "h", "p", "FORK", attributes=attributes)
    assert target_of(event, Verdict.BLOCK) == expected
    assert target_of(event, Verdict.QUARANTINE) == Target("h", "p")
    with pytest.raises(ValueError, match="alert restricts nothing"):
        target_of(event, Verdict.ALERT)


def test_ids_tell_decisions_apart() -> None:
    variants = [
        restriction_id(event, height, verdict, target)
        for event in ("e", "f")
        for height in (1, 2)
        for verdict in (Verdict.BLOCK, Verdict.QUARANTINE)
        for target in (Target("h", "p"), Target("h", "p", "/x"), Target("h", "p", "", "/x"))
    ]
    assert len(set(variants)) == len(variants)


numbers = st.integers(0, 2**62)
moments = st.tuples(numbers, numbers)
# Fields, of which the test builds the record: what checks types in tests draws its own random numbers.
fields = st.fixed_dictionaries(
    {
        "id": st.text(),
        "target": targets,
        "verdict": st.sampled_from(Verdict),
        "event_id": st.text(),
        "height": numbers,
        "duration_ns": numbers,
        "asked": moments,
        "state": st.sampled_from(State),
        "wait_ns": numbers,
        "applied": st.none() | moments,
        "ended": st.none() | moments,
        "by": st.text(),
        "why": st.text(),
        "shadow": st.booleans(),
        "actor": st.none() | st.tuples(st.text(), st.none() | numbers, st.lists(st.text(), max_size=2)),
    }
)


@given(fields)
def test_json_round_trip(values: dict) -> None:
    times: dict[str, Any] = {
        name: values[name] and Moment(*values[name]) for name in ("asked", "applied", "ended")
    }
    if values["actor"] is not None:
        name, pid, ancestors = values["actor"]
        times["actor"] = Actor("h", "p", "FORK", pid, name, name, name, tuple(ancestors))
    restriction = Restriction(**values | times)
    again = json.loads(json.dumps(restriction.as_json()))
    assert Restriction.of(again) == restriction
    assert set(again) == {field.name for field in dataclasses.fields(Restriction)}


@pytest.mark.parametrize(
    "change",
    [
        {"asked": None},
        {"asked": [1]},
        {"asked": [True, 2]},
        {"state": "gone"},
        {"verdict": 9},
        {"target": {"host": "h"}},
        {"extra": 1},
        {"actor": 3},
        {"actor": {"host": "h"}},
    ],
)
def test_a_damaged_form_is_refused_in_words(change: dict) -> None:
    with pytest.raises(DataError, match="ledger is damaged"):
        Restriction.of(active(Moment(0, 0)).as_json() | change)


def test_the_machines_clock_is_a_clock() -> None:
    timeline = Timeline(SystemClock())
    before, after = timeline.now(), timeline.now()
    assert 0 <= before.steady_ns <= after.steady_ns
    assert after.wall_ns > 1_700_000_000_000_000_000
