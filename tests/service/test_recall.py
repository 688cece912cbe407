"""Events whose decisions the desk has let go of are known again as long as the store has them."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service.desks import decision, event

from phalanx.errors import DataError
from phalanx.service.desk import Answer
from phalanx.service.recall import Recall
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.seen import Seen
from phalanx.service.store import Store

EVENTS = [event(i, want="block" if i == 2 else "allow") for i in range(6)]
DECISIONS = [decision(each) for each in EVENTS]
RESTRICTED = Outcome(Effect.NONE, Effect.BLOCK, ("shadow",), "r-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "decisions.sqlite")) as store:
        store.insert(4, EVENTS[:4], DECISIONS[:4], [None, None, RESTRICTED, None])
        yield store


def forgotten(*names: str) -> Seen:
    seen = Seen(64)
    seen.add(names)
    return seen


def test_those_that_are_found_are_answered_as_they_were(store: Store) -> None:
    recall = Recall(forgotten("e1", "e2", "e5"), store)
    found = asyncio.run(recall.answers(dict(enumerate(EVENTS, 10))))
    nothing = Outcome(Effect.NONE, Effect.NONE)
    # e0 and e3 are the desk's to know; e5 was forgotten by the store too
    assert found == {
        11: Answer(DECISIONS[1], 4, nothing, repeated=True),
        12: Answer(DECISIONS[2], 4, RESTRICTED, repeated=True),
    }
    assert asyncio.run(recall.answers({})) == {}


def test_of_several_decisions_the_latest_counts(store: Store) -> None:
    store.insert(
        9, EVENTS[1:2], DECISIONS[1:2], [RESTRICTED]
    )  # the network's, after the alert without a quorum
    found = asyncio.run(Recall(forgotten("e1"), store).answers({0: EVENTS[1]}))
    assert found[0].height == 9 and found[0].outcome == RESTRICTED


@pytest.mark.parametrize("how", ["away", "slow"])
def test_a_store_that_does_not_answer_is_left_alone_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    asked, answered = [], threading.Event()

    def fails(names: Any) -> Any:
        asked.append(list(names))
        if how == "away":
            raise DataError("the database is away")
        answered.wait(60)
        return ()

    recall, by_ids = Recall(forgotten("e1"), store, wait_s=0.05), store.by_ids
    monkeypatch.setattr(store, "by_ids", fails)

    async def both() -> list[Any]:
        try:
            return [await recall.answers({0: EVENTS[1]}), await recall.answers({0: EVENTS[1]})]
        finally:
            answered.set()

    assert asyncio.run(both()) == [{}, {}] and asked == [["e1"]]
    assert "the store does not answer" in caplog.text
    monkeypatch.setattr(store, "by_ids", by_ids)
    assert recall._away_until > 0
    recall._away_until = 0.0  # a while later
    assert asyncio.run(recall.answers({0: EVENTS[1]}))
