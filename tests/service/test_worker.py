"""The deciding thread: order, batches, back-pressure, what fails and what never does, its end."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.desks import HandDesk, event

from phalanx.errors import DataError
from phalanx.service.desk import Answer, Desk
from phalanx.service.ledger import LedgerBrokenError, LedgerFullError
from phalanx.service.records import LiveEvent
from phalanx.service.worker import Failed, QueueConfig, UnavailableError, Worker, size_of

QUICK = QueueConfig(tick_s=0.01, full_s=0.05)


@contextmanager
def working(desk: HandDesk, config: QueueConfig = QUICK, **given: Any) -> Iterator[Worker]:
    worker = Worker(desk, config, **{"batch": 4, **given})
    worker.start()
    try:
        yield worker
    finally:
        desk.gate.set()
        worker.stop()
        assert worker.join(20)


def events(*numbers: int) -> list[LiveEvent]:
    return [event(number) for number in numbers]


def ids(found: Sequence[Answer | Failed]) -> list[str]:
    return [each.decision.event_id if isinstance(each, Answer) else each.code for each in found]


@given(parts=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_everybody_gets_his_own_answers_in_order(parts: list[int]) -> None:
    desk, number, sent = HandDesk(), 0, []
    desk.gate.clear()
    with working(desk) as worker:
        for count in parts:
            mine = events(*range(number, number + count))
            sent.append((mine, worker.submit(mine)))
            number += count
        desk.gate.set()
        for mine, future in sent:
            assert ids(future.result(20)) == [each.id for each in mine]
        assert [name for batch in desk.batches for name in batch] == [f"e{i}" for i in range(number)]
        assert all(len(batch) <= 4 for batch in desk.batches)
        # whatever waits when one batch is done fills the next
        assert len(desk.batches) <= 1 + -(-number // 4)
        assert worker.depth == 0


def test_a_full_queue_takes_nothing_and_says_when_to_come_again() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with working(desk, QueueConfig(events=10)) as worker:
        first = worker.submit(events(*range(8)))
        with pytest.raises(UnavailableError) as caught:
            worker.submit(events(8, 9, 10))
        assert caught.value.code == "queue-full" and 1 <= caught.value.retry_s <= 30
        assert worker.turned_away == 3
        second = worker.submit(events(11, 12))
        desk.gate.set()
        assert len(first.result(20)) == 8 and ids(second.result(20)) == ["e11", "e12"]
        assert ids(worker.submit(events(13)).result(20)) == ["e13"]


def test_memory_is_bounded_in_bytes_too() -> None:
    desk, large = HandDesk(), event(0, text="x" * 4000)
    desk.gate.clear()
    with working(desk, QueueConfig(bytes=2 * size_of(large) + 10)) as worker:
        kept = [worker.submit([large]), worker.submit([event(1, text="x" * 4000)])]
        with pytest.raises(UnavailableError):
            worker.submit(events(2))
        desk.gate.set()
        assert [ids(future.result(20)) for future in kept] == [["e0"], ["e1"]]
        # what is larger than all the room goes alone
        assert ids(worker.submit([event(n, text="x" * 4000) for n in range(3, 6)]).result(20)) == [
            "e3",
            "e4",
            "e5",
        ]


def test_a_batch_fits_into_a_line_of_the_ledger() -> None:
    desk = HandDesk()
    desk.gate.clear()
    large = [event(n, text="x" * 4000) for n in range(4)]
    with working(desk, QueueConfig(batch_bytes=int(2.5 * size_of(large[0])))) as worker:
        blocked = worker.submit(events(9))
        while worker.depth and not desk.batches and worker._waiting:
            time.sleep(0.001)
        future = worker.submit(large)
        desk.gate.set()
        assert ids(future.result(20)) == ["e0", "e1", "e2", "e3"] and blocked.result(20)
        assert desk.batches == [["e9"], ["e0", "e1"], ["e2", "e3"]]


def test_operators_come_before_events_that_wait() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with working(desk) as worker:
        futures = [worker.submit(events(n)) for n in range(40)]
        seen = worker.act(lambda desk: len(desk.batches))  # type: ignore[attr-defined]
        desk.gate.set()
        assert seen.result(20) <= 1
        assert [ids(future.result(20)) for future in futures] == [[f"e{n}"] for n in range(40)]


def test_an_operators_mistake_is_his_alone() -> None:
    desk = HandDesk()

    def mistaken(desk: Desk) -> None:
        raise DataError("no such restriction")

    with working(desk) as worker:
        with pytest.raises(DataError, match="no such"):
            worker.act(mistaken).result(20)
        assert ids(worker.submit(events(1)).result(20)) == ["e1"]


def test_a_full_disk_is_said_and_gone_on_from() -> None:
    desk = HandDesk()
    desk.errors = [LedgerFullError("full")]
    said = threading.Event()
    with working(desk, failed=said.set) as worker:
        found = worker.submit(events(1, 2)).result(20)
        assert ids(found) == ["ledger-full"] * 2 and said.is_set() and worker.full
        with pytest.raises(UnavailableError) as caught:
            worker.submit(events(1))
        assert caught.value.code == "ledger-full" and caught.value.retry_s == 1
        time.sleep(0.06)
        assert ids(worker.submit(events(1)).result(20)) == ["e1"]
        assert worker.alive


@pytest.mark.parametrize("error", [LedgerBrokenError("the disk is gone"), ZeroDivisionError("a mistake")])
def test_what_leaves_the_desk_in_doubt_ends_it_after_answering(error: Exception) -> None:
    desk, over = HandDesk(), threading.Event()
    desk.gate.clear()
    desk.errors = [error]
    worker = Worker(desk, QUICK, batch=4, ended=over.set)
    worker.start()
    futures = [worker.submit(events(*range(n, n + 3))) for n in range(0, 30, 3)]
    action: Future[int] = worker.act(lambda desk: 7)
    desk.gate.set()
    assert all(set(ids(future.result(20))) == {"failed"} for future in futures)
    assert over.wait(20) and worker.join(20)
    assert not worker.alive and worker.failure and desk.snapshots == 0
    if not isinstance(error, LedgerBrokenError):
        assert "mistake" not in worker.failure  # what an unforeseen error says goes to the log alone
    assert action.exception(20) is None or isinstance(action.exception(), UnavailableError)
    for call in (lambda: worker.submit(events(1)), lambda: worker.act(lambda desk: 1)):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == "failed"


def test_a_ledger_that_breaks_while_nothing_is_decided_ends_it_too() -> None:
    desk, over = HandDesk(), threading.Event()
    worker = Worker(desk, QUICK, ended=over.set)
    worker.start()
    desk.ledger.broken = "a sync failed"
    assert over.wait(20) and worker.join(20) and worker.failure == "a sync failed"


def test_stopping_answers_what_was_taken_and_writes_a_snapshot() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with working(desk) as worker:
        futures = [worker.submit(events(n)) for n in range(20)]
        worker.stop()
        with pytest.raises(UnavailableError) as caught:
            worker.submit(events(99))
        assert caught.value.code == "stopping"
        desk.gate.set()
        assert [ids(future.result(20)) for future in futures] == [[f"e{n}"] for n in range(20)]
        assert worker.join(20)
    assert desk.snapshots == 1 and worker.failure == ""


def test_what_is_over_ends_while_nothing_comes() -> None:
    desk, ticks = HandDesk(), threading.Semaphore(0)
    with working(desk, ticked=lambda desk: ticks.release()):
        assert all(ticks.acquire(timeout=20) for _ in range(5))


def test_who_watches_cannot_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    desk = HandDesk()

    def broken(*_: Any) -> None:
        raise ValueError("a watcher's mistake")

    with working(desk, decided=broken, ticked=broken) as worker:
        for n in range(3):
            assert ids(worker.submit(events(n)).result(20)) == [f"e{n}"]
        assert worker.alive
    assert "ValueError" in caplog.text and "in broken" in caplog.text
    assert caplog.records and not any(
        "mistake" in record.getMessage().split("raise")[0] for record in caplog.records
    )


def test_batches_are_told_of_with_their_answers() -> None:
    told: list[tuple[list[str], list[str], float]] = []
    desk = HandDesk()
    with working(
        desk, decided=lambda asked, found, took_s: told.append(([e.id for e in asked], ids(found), took_s))
    ) as worker:
        worker.submit(events(1, 2, 3)).result(20)
    assert [(asked, found) for asked, found, _ in told] == [(["e1", "e2", "e3"],) * 2] and told[0][2] >= 0


def test_many_threads_at_once_lose_nothing() -> None:
    desk = HandDesk()
    with working(desk, QueueConfig(events=50)) as worker:
        answered: list[str] = []
        lock = threading.Lock()

        def client(first: int) -> None:
            for n in range(first, first + 200, 4):
                while True:
                    try:
                        future = worker.submit(events(n, n + 1, n + 2, n + 3))
                    except UnavailableError as full:
                        assert full.code == "queue-full"
                        time.sleep(0.001)
                        continue
                    found = ids(future.result(20))
                    assert found == [f"e{n + k}" for k in range(4)]
                    with lock:
                        answered.extend(found)
                    break

        threads = [threading.Thread(target=client, args=(first,)) for first in range(0, 1600, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(answered) == sorted(f"e{n}" for n in range(1600))
    assert sorted(name for batch in desk.batches for name in batch) == sorted(answered)
