"""The index follows the ledger: live, after a kill at any point, while its database is away, when it is too slow."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service.desks import decision, event
from service.hands import Hands
from service.ledgers import key_of

from phalanx.errors import DataError
from phalanx.service import indexing
from phalanx.service.commands import Command
from phalanx.service.http_asks import Query
from phalanx.service.indexing import Indexer, StoreIndex
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import batch_body
from phalanx.service.outbox import Outbox
from phalanx.service.policy import SafetyPolicy
from phalanx.service.safety import Safety
from phalanx.service.store import Decided, Found, Store
from phalanx.types import Verdict

WANTS = ("allow", "alert", "block", "quarantine")


class Clerk:
    """Decides, writes down, considers and hands on, as the desk does, without a committee."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.folder = folder
        self.store = store or Store.open(str(folder / "decisions.sqlite"))
        self.ledger = Ledger.open(folder / "ledger", key_of(0))
        self.put: list[Command] = []
        self.number = 0
        self.safety = Safety(
            SafetyPolicy(
                enforce=True, alert_repeat_s=0, restrictions_per_host=1000, restrictions_per_fleet=1000
            ),
            Hands(),
            journal=self.written,
        )
        self.indexer = self.start()

    def start(self) -> Indexer:
        self.indexer = Indexer(
            self.store,
            self.folder / "ledger",
            lambda: self.ledger.head.height,
            put=self.taken,
        )
        return self.indexer

    def written(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        self.ledger.append_many([("operator", body) for body in bodies])

    def taken(self, commands: Sequence[Command], height: int) -> None:
        Outbox(self.store, (), Hands()).put(commands, height)
        self.put.extend(commands)

    def decide(self, n: int, *, told: bool = True) -> None:
        events = [
            replace(event(i, want=WANTS[i % 4], path=f"/{i}"), subject=f"p{i}")
            for i in range(self.number, self.number + n)
        ]
        self.number += n
        decisions = [decision(each) for each in events]
        height = self.ledger.append("batch", batch_body(events, decisions, f=1, mode="enforce")).height
        outcomes = []
        for one, of in zip(events, decisions, strict=True):
            outcomes.append(self.safety.consider(of, one, height))
            if told:
                self.indexer.send(outcomes[-1].commands)
        if told:
            self.indexer.index(height, events, decisions, outcomes)

    def close(self) -> None:
        assert self.indexer.stop(60)
        self.ledger.close()
        self.store.close()


def soon(condition: Callable[[], bool]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def everything(store: Store) -> list[Found]:
    """All decisions; without where restrictions are now, which the desk's commands tell."""
    return [replace(found, state="") for found in store.find(limit=1000).items]


def expected(tmp_path: Path, batches: Sequence[int]) -> list[Found]:
    """What an index that was never behind has."""
    clerk = Clerk(tmp_path / "never-behind")
    for n in batches:
        clerk.decide(n)
    clerk.indexer.start()
    assert clerk.indexer.wait(60)
    found = everything(clerk.store)
    clerk.close()
    return found


@pytest.fixture
def clerk(tmp_path: Path) -> Any:
    (tmp_path / "live").mkdir()
    (tmp_path / "never-behind").mkdir()
    return Clerk(tmp_path / "live")


def test_what_is_decided_is_found_with_what_it_led_to(clerk: Clerk) -> None:
    clerk.indexer.start()
    clerk.decide(4)
    look = StoreIndex(clerk.store, clerk.indexer, wait_s=60)
    for number, (effect, reasons) in enumerate(
        [("none", []), ("alert", []), ("block", []), ("ask", ["approval"])]
    ):
        found = look.decision(f"e{number}")
        assert found is not None and found.event_id == f"e{number}" and found.verdict == WANTS[number]
        assert (found.effect, found.would, found.reasons) == (effect, effect, reasons)
        assert bool(found.restriction) == (number > 1)
    assert look.decision("none") is None
    page = look.page(Query(least=Verdict.BLOCK, limit=1))
    assert [each.event_id for each in page.decisions] == ["e3"] and page.next
    page = look.page(Query(least=Verdict.BLOCK, limit=1, after=page.next))
    assert [each.event_id for each in page.decisions] == ["e2"] and page.next is None
    assert clerk.indexer.lag == 0 and clerk.store.last_height("sent") == clerk.ledger.head.height
    assert [command.action for command in clerk.put] == ["alert", "deny", "ask"]
    assert {each.state.value for each in clerk.store.restrictions()} == {"active", "pending"}
    clerk.close()


def test_a_decision_says_where_its_restriction_is_now(clerk: Clerk) -> None:
    clerk.indexer.start()
    clerk.decide(4)
    look = StoreIndex(clerk.store, clerk.indexer, wait_s=60)

    def now(number: int) -> tuple[str | None, str | None]:
        found = look.decision(f"e{number}")
        assert found is not None
        return found.effect, found.restriction_state

    assert [now(number) for number in range(4)] == [
        ("none", None),
        ("alert", None),
        ("block", "active"),
        ("ask", "pending"),
    ]
    asked = look.decision("e3")
    assert asked is not None and asked.restriction
    clerk.indexer.send(clerk.safety.approve(asked.restriction, by="ann"))
    assert now(3) == ("ask", "active")
    clerk.indexer.send(clerk.safety.kill(by="ann"))
    assert [now(number) for number in (2, 3)] == [("block", "lifted"), ("ask", "lifted")]
    assert [each.restriction_state for each in look.page(Query(limit=4)).decisions] == ["lifted"] * 2 + [
        None
    ] * 2
    clerk.close()


@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_a_kill_left_out_is_read_from_the_ledger(clerk: Clerk, tmp_path: Path, at: int) -> None:
    clerk.indexer.start()
    for n in (3, 5, 4)[:at]:
        clerk.decide(n)
    assert clerk.indexer.wait(60) and clerk.indexer.stop(60)
    for n in (3, 5, 4)[at:]:
        clerk.decide(n, told=False)
    clerk.start().start()  # another process, later
    assert clerk.indexer.wait(60)
    clerk.decide(2)
    assert clerk.indexer.wait(60)
    assert everything(clerk.store) == expected(tmp_path, (3, 5, 4, 2))
    clerk.close()


def test_a_slow_store_is_caught_up_from_the_ledger(
    clerk: Clerk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_BATCHES", 2)
    gate, insert = threading.Event(), clerk.store.insert_many

    def slow(*given: Any, **named: Any) -> int:
        gate.wait(60)
        return insert(*given, **named)

    monkeypatch.setattr(clerk.store, "insert_many", slow)
    clerk.indexer.start()
    for _ in range(9):
        clerk.decide(2)
    assert clerk.indexer.lag > 0
    gate.set()
    assert clerk.indexer.wait(60)
    clerk.decide(3)
    assert clerk.indexer.wait(60)
    monkeypatch.undo()
    assert [(f.height, f.event, f.decision) for f in everything(clerk.store)] == [
        (f.height, f.event, f.decision) for f in expected(tmp_path, (*[2] * 9, 3))
    ]
    clerk.close()


class Noted:
    """What an indexer does, in order: sizes of the batches of a transaction, actions of commands."""

    def __init__(self, clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[list[Any]] = []
        insert, put = clerk.store.insert_many, clerk.indexer._put

        def inserted(given: Sequence[Decided]) -> int:
            self.done.append([len(each.events) for each in given])
            return insert(given)

        def taken(commands: Sequence[Command], height: int) -> None:
            self.done.append([command.action for command in commands])
            put(commands, height)

        monkeypatch.setattr(clerk.store, "insert_many", inserted)
        monkeypatch.setattr(clerk.indexer, "_put", taken)


@pytest.mark.parametrize("behind", [False, True])
def test_batches_that_wait_together_are_stored_in_one_transaction(
    clerk: Clerk, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    """A single event a request must not cost a transaction each; commands go first."""
    noted = Noted(clerk, monkeypatch)
    monkeypatch.setattr(indexing, "_AT_ONCE", 6)
    clerk.indexer._behind = behind  # then all of it is read from the ledger
    for number, n in ((0, 1), (4, 1), (8, 1), (1, 1), (12, 1), (16, 4), (20, 1), (24, 1), (28, 9), (40, 1)):
        clerk.number = number
        clerk.decide(n)
    clerk.indexer.start()
    assert clerk.indexer.wait(60) and clerk.indexer.stop(60)
    batches = [part for part in noted.done if isinstance(part[0], int)]
    commands = [part for part in noted.done if isinstance(part[0], str)]
    assert noted.done == commands + batches and len(commands) == 10
    assert [size for part in batches for size in part] == [1, 1, 1, 1, 1, 4, 1, 1, 9, 1]
    assert len(batches) <= 5 and len(everything(clerk.store)) == 21
    clerk.close()


def test_commands_do_not_wait_for_what_there_is_to_catch_up_with(
    clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More batches come than may wait, and go on coming while the ledger is read: a block goes out all the same."""
    monkeypatch.setattr(indexing, "_BATCHES", 4)
    monkeypatch.setattr(indexing, "_AT_ONCE", 1)
    rounds, insert = [0], clerk.store.insert_many

    def slow(given: Sequence[Decided]) -> int:
        rounds[0] += 1
        if rounds[0] == 3:  # in the midst of the ledger
            clerk.number = 1
            clerk.decide(1)
        if rounds[0] < 40:
            for _ in range(5):
                clerk.number = 4
                clerk.decide(1)
        elif rounds[0] == 40:
            seen.extend(clerk.put)
        return insert(given)

    seen: list[Command] = []
    monkeypatch.setattr(clerk.store, "insert_many", slow)
    for _ in range(20):
        clerk.number = 4
        clerk.decide(1)
    clerk.indexer.start()
    soon(lambda: rounds[0] >= 40)
    assert [command.action for command in seen] == ["alert"]
    assert clerk.indexer.wait(60)
    assert clerk.store.last_height() == clerk.indexer._given and not clerk.indexer.lag
    clerk.close()


def test_commands_go_out_between_the_parts_of_what_is_caught_up_with(
    clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_AT_ONCE", 1)
    for _ in range(6):
        clerk.number = 4
        clerk.decide(1, told=False)
    clerk.indexer.look()
    noted, insert = Noted(clerk, monkeypatch), clerk.store.insert_many

    def inserted(given: Sequence[Decided]) -> int:
        if not clerk.put and len(noted.done) == 1:
            clerk.indexer.send([command])
        return insert(given)

    (command,) = clerk.safety.page("drift", why="of a test")
    monkeypatch.setattr(clerk.store, "insert_many", inserted)
    clerk.indexer.start()
    assert clerk.indexer.wait(60)
    assert noted.done.index(["page"]) == 2 and noted.done.count([1]) == 6
    clerk.close()


def test_commands_go_out_while_much_is_forgotten(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = clerk.safety.page("drift", why="of a test")
    sent: list[int] = []

    def forget(days: float, now_ns: int, *, between: Callable[[], None]) -> int:
        clerk.indexer.send([command])
        between()
        sent.append(len(clerk.put))
        return 0

    monkeypatch.setattr(clerk.store, "forget", forget)
    clerk.indexer._days = 1.0
    clerk.indexer.start()
    soon(lambda: bool(sent))
    assert sent == [1]
    clerk.close()


def test_what_was_not_given_yet_is_not_caught_up_with(clerk: Clerk) -> None:
    """What it leads to is not all in the ledger yet, and would be unknown for ever."""
    clerk.decide(4)
    given = clerk.indexer._given
    fresh = replace(event("x", want="block", path="/x"), subject="px")
    clerk.ledger.append("batch", batch_body([fresh], [decision(fresh)], f=1, mode="enforce"))
    clerk.indexer.start()  # behind at first: it reads the ledger
    assert clerk.indexer.wait(60) and clerk.store.last_height() == given
    assert clerk.store.by_id("ex") is None
    clerk.indexer.look()
    assert clerk.indexer.wait(60) and clerk.store.by_id("ex") is not None
    clerk.close()


def test_a_database_that_hangs_is_said(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_STUCK_S", 0.05)
    released, insert = threading.Event(), clerk.store.insert_many
    monkeypatch.setattr(clerk.store, "insert_many", lambda given: released.wait(60) and insert(given))
    clerk.indexer._behind = False
    clerk.indexer.start()
    assert not clerk.indexer.behind
    clerk.decide(1)
    soon(lambda: clerk.indexer.behind)
    assert not clerk.indexer.problem
    released.set()
    assert clerk.indexer.wait(60) and not clerk.indexer.behind
    clerk.close()


def failing_times(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    left = [times]

    def failing(*given: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise DataError("the database is away")
        return call(*given, **named)

    return failing


@pytest.mark.parametrize("method", ["insert_many", "writing", "last_height"])
def test_a_store_that_is_away_loses_nothing(
    clerk: Clerk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(clerk.store, method, failing_times(getattr(clerk.store, method), 2))
    clerk.indexer.start()
    for n in (4, 4, 4):
        clerk.decide(n)
    soon(lambda: not (clerk.indexer.lag or clerk.indexer.problem or clerk.indexer._batches))
    assert [(f.height, f.event) for f in everything(clerk.store)] == [
        (f.height, f.event) for f in expected(tmp_path, (4, 4, 4))
    ]
    assert [command.action for command in clerk.put] == ["alert", "deny", "ask"] * 3
    assert clerk.store.last_height("sent") == clerk.ledger.head.height
    clerk.close()


def test_an_end_while_the_store_is_away_does_not_hang(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk.store, "last_height", failing_times(clerk.store.last_height, 10**9))
    clerk.indexer.start()
    clerk.decide(4)
    soon(lambda: bool(clerk.indexer.problem))
    assert not clerk.indexer.wait(0.01) or clerk.indexer.problem  # whoever asks is not kept waiting
    clerk.close()


def test_old_decisions_are_forgotten(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx.service.indexing._FORGET_S", 0.0)
    days = [0]
    clerk.indexer = Indexer(
        clerk.store,
        clerk.folder / "ledger",
        lambda: clerk.ledger.head.height,
        put=lambda commands, height: None,
        wall_ns=lambda: 10**18 + days[0] * 90_000 * 10**9,
        days=2.0,
    )
    kept = []
    for days[0] in range(6):
        clerk.decide(4)
        if not days[0]:
            clerk.indexer.start()
        assert clerk.indexer.wait(60)
        soon(lambda: len(everything(clerk.store)) <= 12)  # what is old goes after what is new has come
        kept.append(len(everything(clerk.store)))
    # what a day brought counts from that day or, where it came after the look at what was there, from the next
    assert kept[:3] in ([4, 8, 8], [4, 8, 12]) and all(8 <= n <= 12 for n in kept[3:])
    clerk.close()


def test_what_was_written_down_and_never_given_is_found_when_it_is_said(clerk: Clerk, tmp_path: Path) -> None:
    clerk.indexer.start()
    clerk.decide(3)
    clerk.decide(5, told=False)  # the disk was full between the ledger's entry and what followed from it
    clerk.indexer.look()
    clerk.decide(2)
    assert clerk.indexer.wait(60)
    assert [(f.height, f.event) for f in everything(clerk.store)] == [
        (f.height, f.event) for f in expected(tmp_path, (3, 5, 2))
    ]
    clerk.close()
