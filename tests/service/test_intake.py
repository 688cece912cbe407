"""From bytes to a ledger that verifies: whatever is admitted is decided, written down and read back."""

import asyncio
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.desks import HandDesk, decision, event, open_desk
from service.ledgers import verified
from service.models import SMALL, model
from service.test_admission import NOW, VALID, admission, mutated, redact

from phalanx.service.admission import Admission, Refused
from phalanx.service.desk import Answer
from phalanx.service.engine import Engine
from phalanx.service.intake import Intake
from phalanx.service.ledger import read_entries
from phalanx.service.ledger_bodies import batch_body, batch_flaw, events_of
from phalanx.service.metrics import Metrics
from phalanx.service.recall import Recall
from phalanx.service.records import LiveEvent
from phalanx.service.redaction import redact_event
from phalanx.service.replies import EventResult
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.worker import QueueConfig, Worker, size_of

MODEL = model()
ENGINE = Engine(MODEL, SMALL)

extremes = st.sampled_from(
    [
        1e308,
        -1e308,
        5e-324,
        -0.0,
        2**63 - 1,
        -(2**63),
        True,
        False,
        None,
        "",
        "nan",
        "inf",
        "1e999",
        "\x00",
        "\U0001f600",
    ]
)
columns = st.sampled_from(
    [*(c.source for c in MODEL.encoder.categories), *(n.name for n in MODEL.encoder.numbers)]
)
strange = st.dictionaries(columns.filter(lambda name: name not in ("kind", "host", "subject")), extremes).map(
    lambda changes: json.dumps({**VALID, **changes}).encode()
)


@settings(max_examples=150)
@given(sent=st.lists(mutated() | strange, max_size=4))
def test_whatever_is_admitted_is_decided_and_verifies(sent: list[bytes]) -> None:
    taken = Admission(redact_event, lambda: NOW)
    events = [found for item in sent if not isinstance(found := taken.admit(item), Refused)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decisions = ENGINE.decide(events)
    body = batch_body(events, decisions, f=MODEL.committee.f, mode="shadow")
    assert batch_flaw(body) is None and list(events_of(body)) == events
    assert all(0.0 <= decision.score <= 1.0 for decision in decisions)


@given(sent=mutated())
def test_what_an_event_takes_is_not_more_than_was_reckoned(sent: bytes) -> None:
    found = admission().admit(sent)
    if not isinstance(found, Refused):
        from phalanx.service.canonical import canonical
        from phalanx.service.ledger_bodies import event_to_json

        assert len(canonical(event_to_json(found))) <= size_of(found)


def test_results_are_in_the_order_of_what_was_sent(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, MODEL, SMALL)
    worker = Worker(desk, batch=16)
    intake = Intake(Admission(redact, lambda: NOW), worker, Metrics())
    worker.start()
    items: list[tuple[str, bytes]] = []
    for n in range(70):
        form: Any = {**VALID, "id": f"e{n}"} if n % 3 else {"id": f"e{n}"}
        items.append((f"event {n}", json.dumps(form).encode()))
    results = asyncio.run(intake.results(items, first=5))
    worker.stop()
    assert worker.join(60)
    assert [result.index for result in results] == list(range(5, 75))
    for n, result in enumerate(results):
        assert (result.id, result.error is None) == ((f"e{n}", True) if n % 3 else (None, False))
    desk.ledger.close()
    assert not verified(tmp_path / "ledger").findings
    found = [
        e.id
        for entry in read_entries(tmp_path / "ledger")
        if entry.kind == "batch"
        for e in events_of(entry.body)
    ]
    assert found == [f"e{n}" for n in range(70) if n % 3]


def test_patience_waits_for_room_and_nothing_else() -> None:
    desk = HandDesk()
    desk.gate.clear()
    from phalanx.service.worker import UnavailableError

    worker = Worker(desk, QueueConfig(events=1), batch=4)
    worker.start()
    first = worker.submit([event(0)])
    intake = Intake(Admission(redact, lambda: NOW), worker, Metrics())
    items = [("line 1", json.dumps(VALID).encode())]

    async def patient() -> Any:
        waiting = asyncio.ensure_future(intake.results(items, patient=True))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        desk.gate.set()
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(patient())[0].id == "e-1" and first.result(30)
    worker.stop()
    assert worker.join(30)
    for given_ in (True, False):
        try:
            asyncio.run(intake.results(items, patient=given_))
            raise AssertionError("taken by a worker that has stopped")
        except UnavailableError as problem:
            assert problem.code == "stopping"


class OnceDecided(Recall):
    """Knows some events from the second time on that it is asked."""

    def __init__(self, *ids: str) -> None:
        self.ids, self.asked = ids, list[list[str]]()

    async def answers(self, events: Mapping[int, LiveEvent]) -> dict[int, Answer]:
        self.asked.append([each.id for each in events.values()])
        nothing = Outcome(Effect.NONE, Effect.NONE)
        return {
            index: Answer(decision(each), 7, nothing, repeated=True)
            for index, each in events.items()
            if each.id in self.ids and len(self.asked) > 1
        }


def test_what_was_decided_long_ago_is_asked_for_again_after_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a stream waits for room, others' events may push out of memory what the desk knew at first."""
    monkeypatch.setattr("phalanx.service.intake._ASK_AGAIN_S", 0.0)
    desk = HandDesk()
    desk.gate.clear()
    worker, recall, metrics = Worker(desk, QueueConfig(events=2), batch=4), OnceDecided("e2"), Metrics()
    worker.start()
    first = worker.submit([event(0), event(1)])
    intake = Intake(Admission(redact, lambda: NOW), worker, metrics, recall)
    items = [(f"line {n}", json.dumps({**VALID, "id": f"e{n}"}).encode()) for n in (2, 3)]

    async def patient() -> list[EventResult]:
        waiting = asyncio.ensure_future(intake.results(items, patient=True))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        desk.gate.set()
        return await asyncio.wait_for(waiting, 30)

    results = asyncio.run(patient())
    assert first.result(30) and [result.repeated for result in results] == [True, False]
    assert results[0].height == 7 and not any("e2" in batch for batch in desk.batches)
    assert recall.asked[0] == ["e2", "e3"] and recall.asked[-1] == ["e3"]
    worker.stop()
    assert worker.join(30)
    assert 'phalanx_events_total{outcome="repeated"} 1.0' in metrics.text().decode()
