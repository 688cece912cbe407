"""The store keeps each batch once, whole, and finds it again; on both databases."""

import builtins
import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError, ExtraMissingError, UsageError
from phalanx.service.clock import Moment
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction, State, Target
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.store import Decided, Store
from phalanx.service.store_tables import SCHEMA_VERSION, tables
from phalanx.types import Verdict

NASTY = "a'; DROP TABLE decisions; --\x00\ud800\u202e\"%_\\"


Opens = Callable[[str], Store]


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Opens stores that are closed afterwards."""
    opened: list[Store] = []

    def one(where: str) -> Store:
        opened.append(Store.open(where))
        return opened[-1]

    yield one
    for store in opened:
        store.close()


def event_of(number: int, host: str = "h", subject: str = "p", **attributes: Any) -> LiveEvent:
    return LiveEvent(f"e{number}", 1_000 + number, host, subject, "WRITE", "q", attributes)


def decision_of(event: LiveEvent, verdict: Verdict = Verdict.ALLOW) -> LiveDecision:
    return LiveDecision(
        event.id,
        event.time_ns,
        event.host,
        event.subject,
        verdict,
        (verdict, None, Verdict.ALLOW, verdict),
        True,
        0.25,
        False,
        {"ban": float("inf"), "budget": -1.5},
        ("e0", event.id),
        "model-7",
        1,
    )


def batch(numbers: Sequence[int], verdict: Verdict = Verdict.ALLOW, **about: Any) -> tuple[list, list]:
    events = [event_of(number, **about) for number in numbers]
    return events, [decision_of(event, verdict) for event in events]


def ids(page: Any) -> list[str]:
    return [found.event.id for found in page.items]


def test_what_is_stored_is_found_as_it_was(opens: Opens, database: str) -> None:
    store = opens(database)
    event = LiveEvent(
        NASTY, 5, NASTY, NASTY, NASTY, NASTY, {NASTY: NASTY, "n": 2**60, "x": 1.5, "t": True, "z": None}
    )
    decision = decision_of(event, Verdict.QUARANTINE)
    outcome = Outcome(Effect.NONE, Effect.ASK, ("shadow", "approval"), "r-1")
    assert store.insert(7, [event], [decision], [outcome])
    store.close()
    found = opens(database).by_id(NASTY)
    assert found is not None
    assert (found.height, found.event, found.decision) == (7, event, decision)
    assert (found.effect, found.would, found.reasons, found.restriction) == (
        "none",
        "ask",
        ("shadow", "approval"),
        "r-1",
    )
    again = opens(database)
    assert ids(again.find(host=NASTY, subject=NASTY)) == [NASTY]
    assert again.by_id("other") is None and again.find(host="a").items == ()


def test_a_height_is_stored_once(opens: Opens, database: str) -> None:
    store = opens(database)
    assert store.last_height() == 0
    assert store.insert(5, *batch([1, 2]))
    assert not store.insert(5, *batch([1, 2]))
    assert not store.insert(5, *batch([8]))
    assert not store.insert(4, *batch([9]))
    assert store.last_height() == 5 and ids(store.find()) == ["e2", "e1"]
    assert store.insert(9, [], []) and store.last_height() == 9


def test_batches_in_one_transaction_are_each_stored_once(opens: Opens, database: str) -> None:
    store = opens(database)
    several = [Decided(height, *batch(range(height, height + 2))) for height in (3, 6, 9)]
    assert store.insert(6, *batch([60]))
    assert store.insert_many(several) == 1 and store.last_height() == 9
    assert ids(store.find()) == ["e10", "e9", "e60"]
    assert store.insert_many(several) == 0 and store.insert_many([]) == 0
    with pytest.raises(DataError, match="no place"):
        store.insert_many([Decided(12, *batch([12])), Decided(2**42, *batch([13]))])
    assert store.last_height() == 9


def test_a_batch_is_stored_whole_or_not_at_all(opens: Opens, database: str) -> None:
    store = opens(database)

    def fail(connection: Any) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        store.insert(5, *batch([1, 2]), along=fail)
    assert store.last_height() == 0 and ids(store.find()) == []
    assert store.insert(5, *batch([1, 2]))


@pytest.mark.parametrize("height", [0, -1, 2**42])
def test_heights_have_bounds(opens: Opens, tmp_path: Path, height: int) -> None:
    with pytest.raises(DataError, match="has no place"):
        opens(str(tmp_path / "s")).insert(height, *batch([1]))


def test_queries(opens: Opens, database: str) -> None:
    store = opens(database)
    store.insert(1, *batch([1, 2]))
    store.insert(2, *batch([3], Verdict.BLOCK, host="other"))
    store.insert(3, *batch([4, 5], Verdict.ALERT, subject="q"))
    assert ids(store.find()) == ["e5", "e4", "e3", "e2", "e1"]
    assert ids(store.find(host="h")) == ["e5", "e4", "e2", "e1"]
    assert ids(store.find(host="h", subject="q")) == ["e5", "e4"]
    assert ids(store.find(subject="q", host="other")) == []
    assert ids(store.find(since_ns=1_004)) == ["e5", "e4"]
    assert ids(store.find(verdict=Verdict.ALERT)) == ["e5", "e4", "e3"]
    assert ids(store.find(verdict=Verdict.BLOCK)) == ["e3"]
    assert ids(store.find(verdict=Verdict.QUARANTINE)) == []
    found = store.by_id("e3")
    assert found is not None and found.height == 2 and found.effect == "" and found.reasons == ()


def test_pages_follow_on_one_another_while_more_comes_in(opens: Opens, database: str) -> None:
    store = opens(database)
    for height in range(1, 6):
        store.insert(height, *batch(range(10 * height, 10 * height + 3)))
    seen, after = [], ""
    while True:
        page = store.find(after=after, limit=4)
        seen += ids(page)
        store.insert(store.last_height() + 1, *batch([999]))
        after = page.after
        if not after:
            break
    assert seen == [f"e{10 * h + i}" for h in (5, 4, 3, 2, 1) for i in (2, 1, 0)]
    for wrong in ("x", "-1", "f" * 17):
        with pytest.raises(UsageError, match="page before"):
            store.find(after=wrong)
    for limit in (0, 1_001):
        with pytest.raises(UsageError, match="1 to 1000"):
            store.find(limit=limit)


verdicts = st.sampled_from(Verdict)
batches = st.lists(
    st.lists(st.tuples(st.sampled_from("gh"), st.sampled_from("pq"), verdicts), max_size=4), max_size=5
)


@given(batches, st.sampled_from([None, "g"]), st.sampled_from([None, "p"]), verdicts, st.integers(1, 3))
def test_queries_are_those_of_a_plain_list(
    tmp_path_factory: pytest.TempPathFactory,
    given_: list[list[tuple[str, str, Verdict]]],
    host: str | None,
    subject: str | None,
    verdict: Verdict,
    limit: int,
) -> None:
    store = Store.open(str(tmp_path_factory.mktemp("store") / "s"))
    everything: list[tuple[str, str, str, Verdict]] = []
    for height, rows in enumerate(given_, 1):
        events = [event_of(100 * height + i, h, s) for i, (h, s, _) in enumerate(rows)]
        store.insert(height, events, [decision_of(e, v) for e, (_, _, v) in zip(events, rows, strict=True)])
        everything += [(e.id, h, s, v) for e, (h, s, v) in zip(events, rows, strict=True)]
    expected = [
        name
        for name, h, s, v in reversed(everything)
        if host in (None, h) and subject in (None, s) and v >= verdict
    ]
    seen, after = [], ""
    for _ in range(len(everything) + 1):
        page = store.find(host=host, subject=subject, verdict=verdict, after=after, limit=limit)
        seen += ids(page)
        after = page.after
        if not after:
            break
    store.close()
    assert seen == expected


def test_what_is_old_is_forgotten_and_heights_are_not(opens: Opens, database: str) -> None:
    store = opens(database)
    hour, day = 3_600 * 10**9, 86_400 * 10**9
    events = [dataclasses.replace(event_of(i), time_ns=(9 - i) * day) for i in range(10)]
    for i, event in enumerate(events):  # one a day; what they tell of is ever longer ago
        store.insert(i + 1, [event], [decision_of(event)])
        assert store.forget(3, now_ns=i * (day + hour)) == (i >= 3)
    assert ids(store.find()) == ["e9", "e8", "e7"] and store.last_height() == 10
    assert store.forget(3, now_ns=9 * (day + hour)) == 0
    assert not store.insert(2, [events[1]], [decision_of(events[1])])
    again = opens(database)
    assert again.forget(3, now_ns=10 * (day + hour)) == 1 and again.forget(3, now_ns=30 * day) == 2


@pytest.mark.parametrize("minute", [0, 1, 59])
def test_nothing_is_forgotten_before_its_time(opens: Opens, database: str, minute: int) -> None:
    store = opens(database)
    hour = 3_600 * 10**9
    begun = 500_000 * hour + minute * hour // 60
    store.insert(1, *batch([1]))
    calls, deleted = [], 0
    store.forget(1, now_ns=begun)
    for passed in range(1, 40):  # every half an hour
        now_ns = begun + 24 * hour + (passed - 20) * hour // 2
        deleted += store.forget(1, now_ns=now_ns, between=lambda: calls.append(1))
        if now_ns - begun < 24 * hour:
            assert not deleted
        elif now_ns - begun >= 26 * hour:
            assert deleted == 1 and calls


def test_old_events_of_today_are_kept(opens: Opens, database: str) -> None:
    store = opens(database)
    store.insert(1, *batch([1]))
    assert store.forget(30, now_ns=20_000 * 86_400 * 10**9) == 0 and len(store.find().items) == 1


def test_restrictions_are_kept_as_they_last_were(opens: Opens, database: str) -> None:
    store = opens(database)
    asked = Restriction("r1", Target(NASTY, "p"), Verdict.QUARANTINE, "e", 1, 10, Moment(5, 5), wait_ns=9)
    other = Restriction("r2", Target("h", "p", "/x"), Verdict.BLOCK, "e", 1, 10, Moment(9, 5))
    with store.writing() as connection:
        store.put_restrictions(connection, [asked, other])
    with store.writing() as connection:
        store.put_restrictions(connection, [asked.apply(Moment(7, 7), by="ann")])
    assert store.restrictions() == (other, asked.apply(Moment(7, 7), by="ann"))
    assert [each.id for each in store.restrictions(state="active")] == ["r1"]
    assert [each.id for each in store.restrictions(host=NASTY)] == ["r1"]
    ended = other.apply(Moment(8, 8)).end(State.EXPIRED, Moment(9, 9))
    with store.writing() as connection:
        store.put_restrictions(connection, [ended])
    store.forget(0, now_ns=10**9)
    assert [each.id for each in store.restrictions()] == ["r1"]  # what is active is never forgotten


def test_a_database_that_hangs_is_given_up_unless_its_url_says_otherwise(opens: Opens, postgres: str) -> None:
    own = f"{postgres}&options=-cstatement_timeout%3D5000%20-csearch_path%3Delsewhere,public"
    for url, timeout, path in ((postgres, "1min", '"$user", public'), (own, "5s", "elsewhere,public")):
        with opens(url).reading() as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == timeout
            assert connection.exec_driver_sql("SHOW search_path").scalar() == path


def test_many_threads_write_each_height_once(opens: Opens, database: str) -> None:
    store = opens(database)
    new: list[int] = []

    def write() -> None:
        for height in range(1, 21):
            if store.insert(height, *batch([height])):
                new.append(height)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(new) == len(set(new)) and store.last_height() == 20
    assert len(store.find().items) == len(new)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("mysql://u:secret@h/d", UsageError, "no store of scheme 'mysql'"),
        ("sqlite://", UsageError, "no store of scheme 'sqlite'"),
        ("sqlite:///:memory:", DataError, "in memory"),
        (":memory:", DataError, "in memory"),
        ("postgresql://u:secret@h:x/d", UsageError, "cannot be read"),
        ("/nonexistent/folder/s.sqlite", DataError, "there is no folder /nonexistent/folder"),
        ("postgresql://u:secret@127.0.0.1:1/d?connect_timeout=2", DataError, "cannot open the store"),
    ],
)
def test_what_cannot_be_opened_is_said_without_its_password(
    opens: Opens, where: str, error: type, words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        opens(where)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(opens: Opens, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("no database " * 100)
    with pytest.raises(DataError, match="cannot open the store"):
        opens(str(tmp_path / "s"))
    with pytest.raises(DataError, match="cannot open the store"):
        opens(str(tmp_path))


def test_a_store_of_a_newer_version_is_refused(opens: Opens, database: str) -> None:
    store = opens(database)
    with store.writing() as connection:
        heights = tables().heights
        newer = heights.update().where(heights.c.name == "schema").values(value=SCHEMA_VERSION + 1)
        connection.execute(newer)
    store.close()
    with pytest.raises(DataError, match=f"version {SCHEMA_VERSION + 1}; this phalanx knows versions up to"):
        opens(database)


@pytest.mark.parametrize(
    ("package", "where", "extra"), [("sqlalchemy", "s", "serve"), ("psycopg", "postgresql://h/d", "postgres")]
)
def test_a_missing_package_names_its_extra(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, where: str, extra: str
) -> None:
    real = builtins.__import__

    def missing(name: str, *given_: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *given_, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ExtraMissingError, match=rf"phalanx\[{extra}\]"):
        opens(where)


def test_an_sqlite_store_is_its_owners_alone_and_keeps_a_log(opens: Opens, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = opens(f"sqlite:///{path}")
    store.insert(1, *batch([1]))
    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {
        "s.sqlite": 0o600,
        "s.sqlite-wal": 0o600,
        "s.sqlite-shm": 0o600,
    }
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_fails_later_is_a_data_error(opens: Opens, tmp_path: Path) -> None:
    store = opens(str(tmp_path / "s"))
    with store.writing() as connection:
        connection.exec_driver_sql("DROP TABLE decisions")
    with pytest.raises(DataError, match="cannot read the store"):
        store.find()
    with pytest.raises(DataError, match="cannot write to the store"):
        store.insert(1, *batch([1]))
    assert store.last_height() == 0


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, "tests")
        from service.test_store import batch
        from phalanx.service.store import Decided, Store
        store = Store.open(sys.argv[1])
        for height in range(1, 100_000):
            store.insert(height, *batch(range(50)))
            print(height, flush=True)
    """)
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(7)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.stdout.close()
    writer.wait()
    with Store.open(str(path)) as store:
        assert store.last_height() >= acknowledged[-1]
        with store.reading() as connection:
            (count,) = connection.exec_driver_sql("SELECT COUNT(*) FROM decisions").one()
        assert count == 50 * store.last_height()


def test_events_are_kept_in_ascii() -> None:
    # so that a database of any encoding takes them
    from phalanx.service.store import _row

    row = _row(1, event_of(1, path=NASTY), decision_of(event_of(1)), None)
    assert row["event"].isascii() and json.loads(row["event"])["attributes"] == {"path": NASTY}
