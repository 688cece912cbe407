"""Batches as bodies of entries: they read back, and decisions that do not follow from their votes are found."""

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import batch_of, decision_of, event_of, events, pairs, records

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.ledger_bodies import (
    batch_body,
    batch_digest,
    batch_flaw,
    decisions_of,
    event_from_json,
    event_to_json,
    events_of,
)
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.types import Verdict


@given(st.lists(pairs, max_size=4))
def test_what_was_decided_reads_back(drawn: list[Any]) -> None:
    decided = [records(pair) for pair in drawn]
    body = batch_body(
        [event for event, _ in decided], [decision for _, decision in decided], f=0, mode="shadow"
    )
    read = json.loads(canonical(body))
    assert read == body
    assert events_of(read) == tuple(event for event, _ in decided)
    assert decisions_of(read) == tuple(decision for _, decision in decided)
    assert read["digest"] == batch_digest(events_of(read))


def oracle(votes: list[int | None], f: int) -> int:
    """The rule as the docs word it."""
    received = [vote for vote in votes if vote is not None]

    def at_least(severity: int) -> int:
        return len([vote for vote in received if vote >= severity])

    if len(received) < 2 * f + 1:
        return 1
    if at_least(3) >= 2 * f + 1:
        return 3
    if at_least(2) > len(received) / 2:
        return 2
    return 1 if at_least(1) >= f + 1 else 0


def test_every_vote_of_four_members_and_every_verdict_is_judged_by_the_rule() -> None:
    event = event_of(1)
    choices: list[int | None] = [None, 0, 1, 2, 3]
    for votes in itertools.combinations_with_replacement(choices, 4):
        named = [None if vote is None else Verdict(vote) for vote in votes]
        for verdict in Verdict:
            body = batch_body([event], [decision_of(event, named, verdict)], f=1, mode="shadow")
            assert (batch_flaw(body) is None) == (verdict == oracle(list(votes), 1)), (votes, verdict)


ALERTS = [Verdict.ALERT, Verdict.ALERT, Verdict.ALLOW, None]


def judged(decision: LiveDecision, f: int = 1) -> str | None:
    return batch_flaw(batch_body([event_of(1)], [decision], f=f, mode="shadow"))


def test_a_shields_verdict_is_not_recomputed_but_its_quorum_is() -> None:
    assert judged(decision_of(event_of(1), ALERTS, Verdict.BLOCK, shielded=True)) is None
    flaw = judged(decision_of(event_of(1), ALERTS, Verdict.BLOCK, shielded=True, quorum=False))
    assert flaw == "decision 0: quorum is False with 3 votes received and f = 1"
    flaw = judged(decision_of(event_of(1), ALERTS, Verdict.BLOCK))
    assert flaw == "decision 0: the verdict is block, but its votes make alert, and no shield changed it"
    assert (
        judged(decision_of(event_of(1), [Verdict.ALERT] * 3, Verdict.ALERT))
        == "decision 0: 3 members do not tolerate f = 1"
    )
    assert judged(decision_of(event_of(1), ALERTS, Verdict.ALERT), f=-1)


def test_decisions_keep_the_order_of_their_events() -> None:
    two = [event_of(1), event_of(2)]
    decisions = [decision_of(event, ALERTS, Verdict.ALERT) for event in two]
    with pytest.raises(DataError, match="in the place of event 'event-1'"):
        batch_body(two, decisions[::-1], f=1, mode="shadow")
    with pytest.raises(DataError, match="2 events and 1 decisions"):
        batch_body(two, decisions[:1], f=1, mode="shadow")
    with pytest.raises(DataError, match="in the place"):
        batch_body(two[:1], [dataclasses.replace(decisions[0], host="other")], f=1, mode="shadow")


def test_numbers_that_are_not_finite_are_kept_where_they_mean_something() -> None:
    event = event_of(1)
    decision = decision_of(
        event, ALERTS, Verdict.ALERT, robustness={"a": math.inf, "b": -math.inf, "c": math.nan}
    )
    read = decisions_of(json.loads(canonical(batch_body([event], [decision], f=1, mode="shadow"))))[0]
    assert (
        read.robustness["a"] == math.inf
        and read.robustness["b"] == -math.inf
        and math.isnan(read.robustness["c"])
    )
    with pytest.raises(DataError, match=r"nan at \[0\].attributes.load"):
        batch_digest([dataclasses.replace(event, attributes={"load": math.nan})])


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A batch's body with another value at one place."""
    body = json.loads(canonical(batch_of(1, 2)))
    inner = body
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("events", 0, "host"), "web-2", "digest is not that"),
        (("events", 0, "attributes", "uid"), 1.0, "digest is not that"),
        (("digest",), "0" * 64, "digest is not that"),
        (("events", 0), None, "not an event"),
        (("events", 0, "time_ns"), True, "not an event"),
        (("events", 0, "attributes"), {"a": []}, "attribute 'a'"),
        (("events",), {}, "not a batch"),
        (("more",), 1, "not a batch"),
        (("decisions",), [], "2 events and 0 decisions"),
        (("decisions", 0, "event"), "event-2", "another event's"),
        (("decisions", 0, "verdict"), 4, "a verdict is a number"),
        (("decisions", 0, "votes", 0), True, "a verdict is a number"),
        (("decisions", 0, "votes", 0), "block", "a verdict is a number"),
        (("decisions", 0, "quorum"), 1, "not a decision"),
        (("decisions", 0, "score"), "high", "not a decision"),
        (("decisions", 0, "robustness"), {"a": "low"}, "robustness is no number"),
        (("decisions", 0, "evidence"), [1], "evidence"),
        (("decisions", 0, "verdict"), 3, "the verdict is quarantine, but its votes make block"),
        (("decisions", 1, "quorum"), False, "decision 1: quorum"),
        (("f",), 2, "4 members do not tolerate f = 2"),
        (("f",), True, "not a batch"),
    ],
)
def test_a_batch_that_cannot_be_honest_is_found(path: tuple[Any, ...], value: Any, said: str) -> None:
    assert batch_flaw(batch_of(1, 2)) is None
    assert said in (batch_flaw(changed(path, value)) or "")


@given(events)
def test_an_event_reads_back(drawn: Any) -> None:
    event = LiveEvent(**drawn)
    assert event_from_json(json.loads(canonical(event_to_json(event)))) == event
