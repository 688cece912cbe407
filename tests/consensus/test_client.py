"""Gateways and enforcers at the nodes' doors: what reaches them, in order, once; nodes that go, come back, lie."""

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consensus.doors import Street
from consensus.fake_engine import events

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.follower import ask, ledger_height
from phalanx.service.consensus.listener import connect
from phalanx.service.consensus.replies import Agreed
from phalanx.service.ledger_bodies import events_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.ledger_verify import verify_ledger


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with Street(tmp_path).open() as made:
        yield made


def client(street: Street, **more: Any) -> Client:
    return Client(street.committee.chain, street.doors, "gateway", street.committee.gateway, **more)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_decisions_come_back_for_what_was_submitted(street: Street) -> None:
    with client(street) as gateway:
        answers = [gateway.submit(events(batch)) for batch in range(8)]
        for batch, answer in enumerate(answers):
            decisions = answer.result(20)
            assert [d.event_id for d in decisions] == [event.id for event in events(batch)]
            assert all(d.tolerates == 1 and len(d.votes) == 4 for d in decisions)
        assert gateway.submit(events(0)) is not answers[0]  # decided: known no more
        with pytest.raises(DataError, match="0 events"):
            gateway.submit([])


def test_a_submission_on_its_way_is_one_however_often_it_is_made(street: Street) -> None:
    street.deaf = {0, 1, 2, 3}
    with client(street, retry_s=0.1) as gateway:
        one = gateway.submit(events(0))
        assert gateway.submit(events(0)) is one
        until = time.monotonic() + 20
        while not (gateway.counters["again"] and gateway.counters["refused: not now"]):
            assert time.monotonic() < until
            time.sleep(0.01)
        street.deaf = set()
        assert len(one.result(20)) == 4
    assert gateway.counters["again"] >= 1 and gateway.counters["refused: not now"] >= 1
    assert len(street.committee.nodes[0].entries) == 1


def test_what_was_decided_is_not_submitted_for_ever_where_it_was_made_again(street: Street) -> None:
    with client(street, retry_s=0.1) as gateway:
        gateway.submit(events(0)).result(20)
        again = gateway.submit(events(0))  # by somebody who has not heard of the decision yet
        both = gateway.submit([*events(0), *events(1)])
        gateway.settled({event.id for event in events(0)})
        with pytest.raises(DataError, match="decided these events before"):
            again.result(0)
        assert len(both.result(20)) == 8
        until(lambda: not gateway._waiting)
    assert len(street.committee.nodes[0].entries) == 2


def test_f_nodes_that_take_nothing_do_not_matter(street: Street) -> None:
    street.deaf = {2}
    with client(street, retry_s=60) as gateway:
        for batch in range(8):
            assert len(gateway.submit(events(batch)).result(20)) == 4
    assert gateway.counters["again"] == 0


def test_what_was_not_decided_is_told_when_the_client_ends(street: Street) -> None:
    street.deaf = {0, 1, 2, 3}
    with client(street) as gateway:
        answer = gateway.submit(events(0))
    with pytest.raises(DataError, match="closed before"):
        answer.result(0)


def test_a_gateway_that_was_stopped_hears_what_it_missed(street: Street) -> None:
    with client(street) as gateway:
        gateway.submit(events(0)).result(20)
        gateway.submit(events(1)).result(20)
    heard: list[Agreed] = []
    with client(street, since=0, agreed=heard.append):
        until(lambda: len(heard) == 2)
    assert [agreed.height for agreed in heard] == [1, 2]


def test_more_than_f_silent_nodes_are_said(tmp_path: Path) -> None:
    street = Street(tmp_path)
    with pytest.raises(DataError, match="0 of 4 nodes answer; 2 are needed"):
        client(street).__enter__()
    street.committee.close()


def test_an_enforcer_acts_once_in_order_and_keeps_a_ledger_that_f_plus_1_signed(
    street: Street, tmp_path: Path
) -> None:
    acted: list[Entry] = []
    enforcer = Enforcer(street.committee.chain, street.doors, tmp_path / "enforcer", acted.append)
    with enforcer, client(street) as gateway:
        with pytest.raises(UsageError, match="another enforcer"):
            Enforcer(street.committee.chain, street.doors, tmp_path / "enforcer", acted.append)
        for batch in range(4):
            gateway.submit(events(batch)).result(20)
        until(lambda: enforcer.height == 4)
    again = Enforcer(street.committee.chain, street.doors, tmp_path / "enforcer", acted.append)
    with again, client(street) as gateway:
        gateway.submit(events(4)).result(20)
        until(lambda: again.height == 5)
    assert [events_of(entry.body) for entry in acted] == [events(batch) for batch in range(5)]
    found = verify_ledger(tmp_path / "enforcer", street.committee.chain.keys)
    assert not found.findings and found.entries == 5


def test_what_could_not_be_done_is_done_again_and_nothing_before_it(street: Street, tmp_path: Path) -> None:
    done: list[int] = []
    failures = [2, 2, 3]

    def act(entry: Entry) -> None:
        if failures and failures[0] == entry.height:
            failures.pop(0)
            raise OSError("the firewall does not answer")
        done.append(entry.height)

    enforcer = Enforcer(street.committee.chain, street.doors, tmp_path / "enforcer", act)
    with enforcer, client(street) as gateway:
        for batch in range(4):
            gateway.submit(events(batch)).result(20)
        until(lambda: enforcer.height == 4)
    assert done == [1, 2, 3, 4] and not failures


def test_nodes_come_and_go_and_nobody_misses_anything(street: Street, tmp_path: Path) -> None:
    acted: list[int] = []
    enforcer = Enforcer(
        street.committee.chain, street.doors, tmp_path / "enforcer", lambda entry: acted.append(entry.height)
    )
    node = street.committee.nodes[3]
    with enforcer, client(street, retry_s=0.2) as gateway, contextlib.ExitStack() as stack:
        for turn in range(3):
            street.served[3].__exit__()
            gateway.submit(events(2 * turn)).result(20)
            street.served[3] = stack.enter_context(street.door(node, street.doors[3]))
            gateway.submit(events(2 * turn + 1)).result(20)
        until(lambda: enforcer.height == 6)
    assert acted == [1, 2, 3, 4, 5, 6]


def test_a_node_that_gives_out_another_entry_is_not_believed(street: Street, tmp_path: Path) -> None:
    acted: list[Entry] = []
    with client(street) as gateway:
        gateway.submit(events(0)).result(20)
        gateway.submit(events(1)).result(20)
    liar = street.served[0]
    liar._entries = lambda start: iter(street.committee.nodes[0].entries[:1])  # type: ignore[method-assign]
    with Enforcer(street.committee.chain, street.doors, tmp_path / "enforcer", acted.append) as enforcer:
        until(lambda: enforcer.height == 2)
    assert [entry.hash for entry in acted] == [entry.hash for entry in street.committee.nodes[1].entries]


def test_a_height_that_nobody_has_is_not_believed(street: Street) -> None:
    with client(street) as gateway:
        gateway.submit(events(0)).result(20)
    assert ledger_height(street.committee.chain, street.doors) == 1
    node = street.committee.nodes[0]
    from phalanx.service.statements import Statement

    said = Statement.signed(node.key, node.name, 9, "status", {"ledger": 10**9}, "test")
    street.served[0]._status = lambda: {"said": said.to_json()}
    assert ledger_height(street.committee.chain, street.doors) == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "dance"},
        {},
        [],
        5,
        {"do": "submit"},
        {"do": "submit", "raw": "!"},
        {"do": "follow", "from": 0},
        {"do": "follow", "from": "1"},
        {"do": "entry", "height": None},
    ],
)
def test_nonsense_at_the_door_is_refused_in_words(street: Street, request_: object) -> None:
    told = ask(street.doors[0], request_)
    assert told["ok"] is False and told["log"]
    assert street.served[0].counters["malformed"] == 1
    assert "said" in ask(street.doors[0], {"do": "status"})


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\x7f", b"\x03{]}", b"\x02\xff\xfe", b"\x05[[[[["])
def test_noise_at_the_door_closes_its_connection_alone(street: Street, data: bytes) -> None:
    with contextlib.closing(connect(street.doors[0], 10.0)) as connection:
        connection.sendall(data)
        while connection.recv(4096):
            pass
    assert street.served[0].counters["malformed"] == 1
    assert "said" in ask(street.doors[0], {"do": "status"})


def test_what_nobody_may_submit_does_not_reach_the_engine(street: Street) -> None:
    raw = base64.b64encode(b"S" + bytes(80)).decode()
    told = ask(street.doors[0], {"do": "submit", "raw": raw})
    assert told["ok"] is False and "not a submission" in told["log"] and not street.store
    assert street.served[0].counters["refused"] == 1
    assert ask(street.doors[0], {"do": "entry", "height": 1}) == {"ok": False, "line": ""}
