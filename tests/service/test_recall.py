"""Events whose decisions the desk has let go of are known again as long as the store has them."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
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
    other = replace(EVENTS[1], kind="EXECUTE")
    found = asyncio.run(recall.answers({0: EVENTS[2], 1: other}))
    assert [found[key].another for key in (0, 1)] == [False, True]


def test_of_several_decisions_the_latest_counts(store: Store) -> None:
    store.insert(
        9, EVENTS[1:2], DECISIONS[1:2], [RESTRICTED]
    )  # the network's, after the alert without a quorum
    found = asyncio.run(Recall(forgotten("e1"), store).answers({0: EVENTS[1]}))
    assert found[0].height == 9 and found[0].outcome == RESTRICTED


def test_what_an_old_decision_led_to_may_not_be_known(store: Store) -> None:
    store.insert(9, EVENTS[2:3], DECISIONS[2:3])
    found = asyncio.run(Recall(forgotten("e2"), store).answers({0: EVENTS[2]}))
    assert (found[0].outcome.effect, found[0].outcome.reasons) == (Effect.NONE, ("considered",))


@pytest.mark.parametrize("how", ["away", "slow"])
def test_a_store_that_does_not_answer_is_left_alone_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Nothing else waits for it: neither other threads of the loop, nor its end, nor those who ask meanwhile."""
    asked, released = [], threading.Event()

    def fails(names: Any) -> Any:
        asked.append(list(names))
        if how == "away":
            raise DataError("the database is away")
        released.wait(60)
        return ()

    recall, by_ids = Recall(forgotten("e1"), store, wait_s=0.05, pause_s=60), store.by_ids
    monkeypatch.setattr(store, "by_ids", fails)

    async def several() -> list[Any]:
        first = await asyncio.gather(*[recall.answers({0: EVENTS[1]}) for _ in range(9)])
        return [*first, await recall.answers({0: EVENTS[1]})]

    begun = time.monotonic()
    assert asyncio.run(several()) == [{}] * 10  # whose end waits for every thread of the loop's own
    assert time.monotonic() - begun < 30 and caplog.text.count("does not say") == 1
    assert len(asked) == (9 if how == "away" else 1)
    released.set()
    monkeypatch.setattr(store, "by_ids", by_ids)
    recall._away_until = 0.0  # a while later
    recall._wait_s = 60
    assert asyncio.run(recall.answers({0: EVENTS[1]}))


def test_a_burst_of_old_events_waits_for_its_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lookup is quick, all of them together take longer than one may."""
    recall, by_ids = Recall(forgotten("e1", "e2"), store, wait_s=0.5), store.by_ids

    def takes_a_while(names: Any) -> Any:
        time.sleep(0.02)
        return by_ids(names)

    monkeypatch.setattr(store, "by_ids", takes_a_while)

    async def burst() -> list[dict[int, Answer]]:
        return await asyncio.gather(*[recall.answers({0: EVENTS[1], 1: EVENTS[2]}) for _ in range(60)])

    assert all(len(found) == 2 for found in asyncio.run(burst()))
