"""Followers and those who ask, while nodes are silent, drip, lie, or are far apart, or whoever is told waits."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from consensus.doors import Street, dripping, false_door, in_time, silent
from consensus.fake_engine import events

from phalanx.errors import DataError
from phalanx.service.consensus import asking, client, follower
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.door import Door, message
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.follower import Follower, ask, entry_of
from phalanx.service.consensus.framing import MAX_MESSAGE, frame
from phalanx.service.consensus.replies import Agreed, Tally, reply_bytes, reply_to
from phalanx.service.ledger_entry import ENTRY_LIMIT, GENESIS, Entry, Head, entry_line, seal
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.statements import Statement

HEIGHTS = 20


@pytest.fixture(autouse=True)
def nobody_demoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_DEMOTED", asking._Demoted())


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """A committee that has decided 20 batches; its doors are not open."""
    made = Street(tmp_path_factory.mktemp("street"))
    for batch in range(HEIGHTS):
        made.committee.step([made.committee.submission(batch)])
    made.committee.step()
    yield made
    made.committee.close()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def agreed_at(street: Street, height: int, places: tuple[int, ...] = (0, 1)) -> Agreed:
    """What is told once the members at some places have answered."""
    tally = Tally(street.committee.chain, height)
    nodes = [street.committee.nodes[place] for place in places]
    found = [tally.add(reply_to(node.chain, node.name, node.key, node.entries[height - 1])) for node in nodes]
    assert found[-1] is not None
    return found[-1]


@contextmanager
def opened(street: Street, *honest: int) -> Iterator[None]:
    with ExitStack() as stack:
        for place in honest:
            stack.enter_context(street.door(street.committee.nodes[place], street.doors[place]))
        yield


def stopping(following: Follower | Client | Enforcer) -> None:
    in_time(following.__exit__)


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_question_ends_whatever_the_node_does(tmp_path: Path, answer: Any) -> None:
    with false_door(tmp_path / "door", answer) as asked, pytest.raises(TimeoutError):
        in_time(lambda: ask(tmp_path / "door", {"do": "status"}, 0.5))
    assert asked == ["status"]


def test_an_answer_that_is_too_long_is_not_waited_for(tmp_path: Path) -> None:
    def endless(request: object, connection: socket.socket) -> None:
        connection.sendall(frame(bytes(asking.ANSWER_BYTES + 1))[:100])

    with false_door(tmp_path / "door", endless), pytest.raises(DataError, match="longer than 1048576"):
        ask(tmp_path / "door", {"do": "status"})


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_submission_that_is_not_answered_is_given_up_and_the_client_ends(
    street: Street, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_TIMEOUT_S", 0.3)
    with ExitStack() as stack:
        for door in street.doors:
            stack.enter_context(false_door(door, answer))
        gateway = Client(street.committee.chain, street.doors, "gateway", street.committee.gateway, since=0)
        gateway.__enter__()
        told = gateway.submit(events(99))
        until(lambda: gateway.counters["unreachable"] >= 2)
        stopping(gateway)
        with pytest.raises(DataError, match="closed before"):
            told.result(0)


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_client_ends_while_all_nodes_keep_it_waiting(street: Street, answer: Any) -> None:
    with ExitStack() as stack:
        asked = [stack.enter_context(false_door(door, answer)) for door in street.doors]
        gateway = Client(
            street.committee.chain, street.doors, "gateway", street.committee.gateway, since=0, retry_s=0.1
        )
        gateway.__enter__()
        gateway.submit(events(99))
        until(lambda: all("submit" in each and "follow" in each for each in asked))
        threads = [*gateway.follower._threads, *(sender.thread for sender in gateway._senders)]
        stopping(gateway)
        until(lambda: not any(thread.is_alive() for thread in threads))


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_node_that_keeps_others_waiting_is_asked_for_entries_no_more(
    street: Street, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SLOW_S", 1e9)  # this machine may be busy
    monkeypatch.setattr(asking, "_PATIENCE_S", (0.5, 20.0))
    with false_door(street.doors[0], answer) as asked, opened(street, 1, 2, 3):
        for height in range(1, HEIGHTS + 1):
            entry = in_time(lambda at=height: entry_of(street.doors, agreed_at(street, at)), 60.0)
            assert isinstance(entry, Entry)
            assert entry.hash == street.committee.nodes[1].entries[height - 1].hash
            assert set(entry.signatures) == {"node0", "node1"}
        assert asked == ["entry"]


def test_those_who_said_that_they_have_an_entry_are_asked_in_turn(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SLOW_S", 1e9)
    monkeypatch.setattr(asking, "_PATIENCE_S", (20.0,))
    asked: list[Path] = []
    really = asking.ask

    def noted(door: Path, *args: Any, **more: Any) -> Any:
        asked.append(door)
        return really(door, *args, **more)

    monkeypatch.setattr(asking, "ask", noted)
    with opened(street, 0, 1, 2, 3):
        for height in range(1, 9):
            entry_of(street.doors, agreed_at(street, height, (3, 1)))
        assert sorted(asked) == [street.doors[1]] * 4 + [street.doors[3]] * 4
        ending = threading.Event()
        ending.set()
        with pytest.raises(DataError, match="no node has the entry"):
            entry_of(street.doors, agreed_at(street, 1), ending=ending)
        assert len(asked) == 8


def test_an_entry_may_be_as_long_as_a_line_of_the_ledger(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_PATIENCE_S", (60.0,))
    assert len('{"ok":false,"line":""}') + 4 * -(-ENTRY_LIMIT // 3) <= asking._ENTRY_BYTES
    body = {"why": "x" * (13 << 20)}  # in base64 longer than the messages of an engine may be
    entry, line = seal(1, GENESIS, "operator", body, signers={}, signatures={})
    assert 4 * len(line) // 3 > MAX_MESSAGE
    monkeypatch.setattr(Door, "_entries", lambda self, start: iter([entry]))
    told = Agreed(1, "", (), (), (), (), "shadow", (0,), Head(1, entry.hash))
    with opened(street, 0):
        assert entry_of(street.doors, told) == entry
    assert entry_line(entry) == line


def test_enforcers_go_on_while_one_node_drips_and_another_is_down(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_PATIENCE_S", (0.5, 20.0))
    acted: list[int] = []

    def half(request: dict[str, object], connection: socket.socket) -> None:
        """Follows as it should, and gives out no entry."""
        if request["do"] == "entry":
            dripping(request, connection)
        node = street.committee.nodes[0]
        for entry in node.entries:
            connection.sendall(message(reply_to(node.chain, node.name, node.key, entry).to_json()))

    with false_door(street.doors[0], half), opened(street, 1, 2):
        enforcer = Enforcer(
            street.committee.chain, street.doors, tmp_path / "e", lambda entry: acted.append(entry.height)
        )
        with enforcer:
            until(lambda: enforcer.height == HEIGHTS)
    assert acted == list(range(1, HEIGHTS + 1))
    assert not verify_ledger(tmp_path / "e", street.committee.chain.keys).findings


class Taking:
    """Whoever is told, and takes its time."""

    def __init__(self) -> None:
        self.heights: list[int] = []
        self.told = threading.Event()
        self.go = threading.Event()

    def __call__(self, agreed: Agreed) -> None:
        self.told.set()
        self.go.wait()
        self.heights.append(agreed.height)


def test_whoever_is_told_may_wait_and_evidence_is_there_meanwhile(street: Street) -> None:
    taking = Taking()
    with opened(street, 0, 1, 2, 3):
        following = Follower(street.committee.chain, street.doors, 1, taking, window=4)
        with following:
            assert taking.told.wait(20)
            assert in_time(lambda: following.evidence) == ()
            # each node is read a window ahead, and no further
            until(lambda: all(len(heard) == 5 for heard in following._tally._heard.values()))
            assert all(max(heard) == 5 for heard in following._tally._heard.values())
            assert following.height == 0 and not following.refused
            taking.go.set()
            until(lambda: following.height == HEIGHTS)
    assert taking.heights == list(range(1, HEIGHTS + 1))


def test_closing_ends_what_waits(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    taking = Taking()
    with opened(street, 0, 1, 2, 3):
        following = Follower(street.committee.chain, street.doors, 1, taking, window=4).__enter__()
        assert taking.told.wait(20)
        monkeypatch.setattr(follower, "_CLOSE_S", 0.1)
        stopping(following)  # though whoever is told has not returned
        assert following.ending.is_set() and following._threads[0].is_alive()
        taking.go.set()
        until(lambda: not any(thread.is_alive() for thread in following._threads))
    assert taking.heights == [1]


def test_an_enforcer_that_is_closed_acts_no_more(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, acted = Taking(), []
    really = asking.entry_of

    def late(doors: Any, agreed: Agreed, **more: Any) -> Entry:
        taking(agreed)
        return really(doors, agreed)

    monkeypatch.setattr("phalanx.service.consensus.enforcer.entry_of", late)
    monkeypatch.setattr(follower, "_CLOSE_S", 0.1)
    with opened(street, 0, 1, 2, 3):
        enforcer = Enforcer(street.committee.chain, street.doors, tmp_path / "e", acted.append).__enter__()
        assert taking.told.wait(20)
        stopping(enforcer)
        taking.go.set()
        until(lambda: not any(thread.is_alive() for thread in enforcer._follower._threads))
    assert taking.heights == [1] and not acted
    assert (tmp_path / "e" / "ledger-00000001.ndjson").read_bytes() == b""


def test_nodes_may_be_further_apart_than_the_window(street: Street) -> None:
    heights: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(opened(street, 0))
        following = Follower(
            street.committee.chain,
            street.doors[:2],
            1,
            lambda agreed: heights.append(agreed.height),
            window=4,
        )
        stack.enter_context(following)
        until(lambda: len(following._tally._heard["node0"]) == 5)
        stack.enter_context(opened(street, 1))  # which begins where the other one began
        until(lambda: following.height == HEIGHTS)
    assert heights == list(range(1, HEIGHTS + 1)) and not following.refused


def lies(street: Street) -> dict[str, bytes]:
    """What node 0 sends instead of its replies."""
    node = street.committee.nodes[0]
    form = reply_to(node.chain, node.name, node.key, node.entries[0]).to_json()
    content = {**form["said"]["content"], "models": ["m" * 10_000] * 4}
    said = Statement.signed(node.key, node.name, 1, "reply", content, node.chain.name)
    return {
        "a long one": frame(bytes(reply_bytes(node.chain) + 1)),
        "the beginning of a long one": frame(bytes(16 << 20))[:10],
        "another form": message({"said": 1, "entry": ""}),
        "no JSON": frame(b"{"),
        "of its own making": message({**form, "said": said.to_json()}),
        "far ahead": message({**form, "said": {**form["said"], "height": 10**9}}),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "a long one",
        "the beginning of a long one",
        "another form",
        "no JSON",
        "of its own making",
        "far ahead",
    ],
)
def test_what_a_liar_sends_is_counted_and_the_others_are_followed(street: Street, kind: str) -> None:
    raw = lies(street)[kind]
    heights: list[int] = []
    with (
        false_door(street.doors[0], lambda _, connection: connection.sendall(raw)) as asked,
        opened(street, 1, 2, 3),
        Follower(
            street.committee.chain, street.doors, 1, lambda agreed: heights.append(agreed.height), window=4
        ) as following,
    ):
        until(lambda: following.height == HEIGHTS and bool(asked))
        until(lambda: kind == "far ahead" or following.refused > 0)  # for that one its own connection waits
        assert not following._tally._heard["node0"] and not following.evidence
    assert heights == list(range(1, HEIGHTS + 1))


def test_what_could_not_be_passed_on_is_told_again_before_anything_else(street: Street) -> None:
    heights: list[int] = []
    problems: list[Exception] = [OSError("no"), RuntimeError("no"), DataError("no")]

    def told(agreed: Agreed) -> None:
        heights.append(agreed.height)
        if agreed.height == 3 and problems:
            raise problems.pop()

    with (
        opened(street, 0, 1, 2, 3),
        Follower(street.committee.chain, street.doors, 1, told, window=4) as following,
    ):
        until(lambda: following.height == HEIGHTS)
    assert heights == [1, 2, 3, 3, 3, *range(3, HEIGHTS + 1)]
