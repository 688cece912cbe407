"""The desk of a committee that decides elsewhere: nothing lost, nothing twice, alerts without a quorum, restarts."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.desks import open_desk
from service.ledgers import key_of
from service.models import SMALL, many, model

from phalanx.committee import decide
from phalanx.errors import UsageError
from phalanx.service.desk import Desk
from phalanx.service.engine import Engine
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import LedgerFullError, read_entries
from phalanx.service.ledger_bodies import batch_body, batch_flaw, counted, decisions_of, events_of
from phalanx.service.ledger_entry import GENESIS, Entry, seal
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.live import LivePath
from phalanx.service.members import Members
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.types import Verdict

MODEL = model(threshold=0.5)
CONFIG = replace(SMALL, answering="all", slots=32)
ITEMS = many(90, processes=40, seed=7)


class Network:
    """What outlives the desk: events that were submitted, and the entries that were decided."""

    def __init__(self) -> None:
        self.submitted: list[LiveEvent] = []
        self.entries: list[Entry] = []

    def decide(self, count: int) -> None:
        """Decides the oldest events that wait."""
        events, self.submitted = self.submitted[:count], self.submitted[count:]
        if not events:
            return
        decisions = [voted(event) for event in events]
        told = {"chain": "net", "models": ["m0", "m1", None, "m3"], "ordered": 1, "height": 2}
        body = batch_body(events, decisions, f=1, mode="shadow", consensus=told)
        previous = self.entries[-1].hash if self.entries else GENESIS
        entry, _ = seal(
            len(self.entries) + 1, previous, "batch", body, signers={"m0": key_of(1)}, signatures={}
        )
        self.entries.append(entry)


def voted(event: LiveEvent) -> LiveDecision:
    """What the network decides: votes are a hash."""
    digits = hashlib.sha256(event.id.encode()).digest()
    votes = (Verdict(digits[0] % 4), Verdict(digits[1] % 4), None, Verdict(digits[2] % 4))
    verdict = Verdict(decide([v for v in votes if v is not None], 1))
    return LiveDecision(
        event.id, event.time_ns, event.host, event.subject, verdict, votes, True, 0.5, False, {}, (), "m", 1
    )


class Wire:
    """A ``Remote`` over the network; ``slow``: it answers nothing until it is told to."""

    n, f, patience_s = 4, 1, 0.0

    def __init__(self, network: Network) -> None:
        self.network = network
        self.out, self.slow = False, False
        self.refuses: set[str] = set()
        self.accusations: list[dict[str, Any]] = []
        self._asked: set[str] = set()
        self._at = 0

    def begin(self, height: int) -> None:
        self._at = height

    def ask(self, events: Sequence[LiveEvent]) -> list[str]:
        refused = [event.id for event in events if event.id in self.refuses]
        if not (self.out and self._asked):
            new = [event for event in events if event.id not in self._asked and event.id not in refused]
            self.network.submitted += new
            self._asked |= {event.id for event in new}
        if not self.slow:
            self.network.decide(len(self.network.submitted))
        return refused

    def next(self, wait_s: float) -> Entry | None:
        entry = self.network.entries[self._at] if self._at < len(self.network.entries) else None
        if entry is not None:
            self.out = False
        return entry

    def done(self) -> None:
        self._asked -= {event["id"] for event in self.network.entries[self._at].body["events"]}
        self._at += 1

    def lost(self) -> None:
        self.out = True

    def evidence(self) -> Sequence[dict[str, Any]]:
        return self.accusations


ENFORCING = SafetyPolicy(enforce=True, restrictions_per_host=1000, restrictions_per_fleet=1000)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """All desks here have the same model: their step is compiled once."""
    compiled, real = {}, LivePath.compiled

    def once(path: LivePath) -> Any:
        return (
            compiled.setdefault(path.answering, real(path))
            if path.committee is MODEL.committee
            else real(path)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LivePath, "compiled", once)
        yield


@contextlib.contextmanager
def desk_over(folder: Path, network: Network) -> Iterator[tuple[Desk, Wire]]:
    wire = Wire(network)
    desk = open_desk(folder, MODEL, CONFIG, network=wire, policy=ENFORCING)
    try:
        yield desk, wire
    finally:
        desk.ledger.close()


def in_ledger(folder: Path) -> list[tuple[LiveEvent, LiveDecision, bool]]:
    """All decisions of the desk's ledger, and whether they are the network's."""
    return [
        (event, decision, "consensus" in entry.body)
        for entry in read_entries(folder / "ledger")
        if entry.kind == "batch"
        for event, decision in zip(
            *counted(entry.body, events_of(entry.body), decisions_of(entry.body)), strict=True
        )
    ]


def test_verdict_and_votes_are_the_networks_and_the_rest_is_said_here(tmp_path: Path) -> None:
    with desk_over(tmp_path, Network()) as (desk, _):
        answers = desk.decide(ITEMS[:16]) + desk.decide(ITEMS[16:30])
        expected = [voted(event) for event in ITEMS[:30]]
        reference = Engine(MODEL, CONFIG).decide(ITEMS[:30], [int(each.verdict) for each in expected])
        for answer, net, own in zip(answers, expected, reference, strict=True):
            assert answer.decision == replace(
                own, verdict=net.verdict, votes=net.votes, model="m", tolerates=1
            )
        again = desk.decide(ITEMS[:5])
        assert all(answer.repeated for answer in again)
    entries = list(read_entries(tmp_path / "ledger"))
    batches = [entry.body for entry in entries if entry.kind == "batch"]
    assert [body["consensus"]["height"] for body in batches] == [1, 2]
    assert all(batch_flaw(body) is None for body in batches)
    own = Members.of({"phalanx": SigningKey.load(tmp_path / "key.pem").public})
    assert not verify_ledger(tmp_path / "ledger", own, needed=1).findings


def test_without_a_quorum_everything_is_an_alert_and_the_decision_follows(tmp_path: Path) -> None:
    network = Network()
    with desk_over(tmp_path, network) as (desk, wire):
        wire.slow = True
        (answer,) = desk.decide(ITEMS[:1])
        assert (answer.decision.verdict, answer.decision.quorum, wire.out) == (Verdict.ALERT, False, True)
        assert "no-quorum" in answer.outcome.reasons
        desk.decide(ITEMS[1:40])
        assert network.submitted == ITEMS[:1]  # one submission waits for the quorum, not all there is
        network.decide(1)
        desk.tick()
        wire.slow = False
        assert desk.decide(ITEMS[:1])[0].decision.votes == voted(ITEMS[0]).votes
        assert not wire.out
        assert desk.decide(ITEMS[40:41])[0].decision.quorum


def test_what_was_answered_without_a_quorum_stays_an_alert_whoever_sends_it_again(tmp_path: Path) -> None:
    network = Network()
    other = replace(ITEMS[0], kind="EXIT")
    with desk_over(tmp_path, network) as (desk, wire):
        wire.slow = True
        for item in ITEMS[:10]:
            desk.decide([item])
        wire.slow = False
        # the first was on its way: its decision comes while something else is asked
        answers = desk.decide([ITEMS[12], ITEMS[0], other, *ITEMS[5:9]])
        assert [answer.decision.quorum for answer in answers] == [False, True, True] + [False] * 4
        assert [answer.another for answer in answers] == [False, False, True] + [False] * 4
        assert [answer.repeated for answer in answers] == [False, False] + [True] * 5
        assert [answer.decision.quorum for answer in desk.decide([ITEMS[13], ITEMS[5]])] == [True, False]
    assert [event for event, _, theirs in in_ledger(tmp_path) if theirs] == [ITEMS[0], ITEMS[13]]


def test_what_cannot_be_submitted_is_an_alert_and_the_quorum_is_not_lost(tmp_path: Path) -> None:
    with desk_over(tmp_path, Network()) as (desk, wire):
        wire.refuses = {ITEMS[1].id}
        quorum = [answer.decision.quorum for answer in desk.decide(ITEMS[:3])]
        assert quorum == [True, False, True] and not wire.out


def test_evidence_goes_into_the_ledger_once_and_an_operator_is_called(tmp_path: Path) -> None:
    sent: list[str] = []
    wire = Wire(Network())
    desk = open_desk(
        tmp_path, MODEL, CONFIG, network=wire, send=lambda commands: sent.extend(c.action for c in commands)
    )
    wire.accusations.append({"member": "m2", "height": 3})
    desk.tick()
    desk.tick()
    desk.ledger.close()
    kinds = [entry.kind for entry in read_entries(tmp_path / "ledger")]
    assert kinds.count("evidence") == 1 and sent.count("page") == 1


def test_ledgers_of_one_process_and_of_a_network_are_not_mixed(tmp_path: Path) -> None:
    with desk_over(tmp_path / "n", Network()) as (desk, _):
        desk.decide(ITEMS[:3])
    with pytest.raises(UsageError, match="phalanx up"):
        open_desk(tmp_path / "n", MODEL, CONFIG)
    alone = open_desk(tmp_path / "a", MODEL, CONFIG)
    alone.decide(ITEMS[:3])
    alone.ledger.close()
    with pytest.raises(UsageError, match="phalanx serve"):
        open_desk(tmp_path / "a", MODEL, CONFIG, network=Wire(Network()))


def test_a_full_disk_keeps_what_was_agreed_on_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    with desk_over(tmp_path, network) as (desk, _):
        desk.decide(ITEMS[:4])
        with monkeypatch.context() as patch:

            def full(*_: Any) -> None:
                raise LedgerFullError("full")

            patch.setattr(desk.ledger, "append", full)
            with pytest.raises(LedgerFullError):
                desk.decide(ITEMS[4:8])
            desk.tick()
        answers = desk.decide(ITEMS[4:8])  # the client sends it again
        assert [answer.decision.votes for answer in answers] == [voted(e).votes for e in ITEMS[4:8]]
        assert len(network.entries) == 2
    assert [event for event, _, _ in in_ledger(tmp_path)] == ITEMS[:8]


def test_an_event_that_comes_twice_counts_once_and_the_batch_stays_whole(tmp_path: Path) -> None:
    """Two submissions of one block, or of two, may hold the same event."""
    network = Network()
    with desk_over(tmp_path, network) as (desk, wire):
        wire.slow = True
        desk.decide(ITEMS[:1])  # no quorum yet
        network.submitted += [*ITEMS[:4], ITEMS[0], ITEMS[2]]
        network.decide(99)
        desk.tick()
        network.submitted += [*ITEMS[2:6]]
        network.decide(99)
        desk.tick()
        state = desk.engine.mark().counters
    found = [entry.body for entry in read_entries(tmp_path / "ledger") if entry.kind == "batch"][1:]
    assert [body["consensus"]["again"] for body in found] == [[1, 5, 6], [0, 1]]
    assert [len(body["events"]) for body in found] == [7, 4] and not any(map(batch_flaw, found))
    with desk_over(tmp_path, network) as (desk, _):
        assert desk.engine.mark().counters == state
        assert all(answer.repeated for answer in desk.decide(ITEMS[:6]))


def test_what_was_written_down_is_considered_whatever_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the decisions and before what they lead to; or the process is killed there."""
    for killed in (False, True):
        folder, network = tmp_path / str(killed), Network()
        with desk_over(folder, network) as (desk, _):
            with monkeypatch.context() as patch:

                def full(*_: Any) -> None:
                    raise LedgerFullError("full")

                patch.setattr(desk.ledger, "append_many", full)
                with pytest.raises(LedgerFullError):
                    desk.decide(ITEMS[:30])
            if not killed:
                desk.tick()
                effects = desk.safety.counts
        if killed:
            with desk_over(folder, network) as (desk, _):
                effects = desk.safety.counts
        whole = tmp_path / f"{killed}-whole"
        with desk_over(whole, Network()) as (desk, _):
            desk.decide(ITEMS[:30])
            expected = desk.safety.counts
        mild = "effect/none"  # what allows is not considered anew
        assert {k: v for k, v in effects.items() if k != mild} == {
            k: v for k, v in expected.items() if k != mild
        }
        assert expected["effect/block"] + expected["effect/ask"] > 0


def test_a_disk_that_takes_no_snapshot_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Engine, "save", full)
    with desk_over(tmp_path, Network()) as (desk, _):
        desk.config = replace(desk.config, snapshot_every=2)
        assert len(desk.decide(ITEMS[:8])) == 8
        assert len(desk.decide(ITEMS[8:16])) == 8


def test_evidence_that_cannot_be_kept_still_calls_an_operator(tmp_path: Path) -> None:
    sent: list[str] = []
    wire = Wire(Network())
    desk = open_desk(
        tmp_path, MODEL, CONFIG, network=wire, send=lambda commands: sent.extend(c.action for c in commands)
    )
    wire.accusations.append({"member": "m2", "height": 3, "first": "x" * (33 << 20)})
    desk.tick()
    assert sent.count("page") == 1 and desk.decide(ITEMS[:2])
    desk.ledger.close()


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_happens_each_event_is_answered_and_each_agreement_kept_once(data: st.DataObject) -> None:
    """Batches, a network that answers late or in other pieces, and desks that are killed and come back."""
    network, acknowledged, left = Network(), set(), list(ITEMS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(data.draw(st.integers(1, 3))):
            with desk_over(folder, network) as (desk, wire):
                for _ in range(data.draw(st.integers(1, 5))):
                    wire.slow = data.draw(st.booleans())
                    batch = [left.pop(0) for _ in range(min(len(left), data.draw(st.integers(1, 6))))]
                    if data.draw(st.booleans()):
                        batch += ITEMS[:2]  # sent again
                    acknowledged |= {answer.decision.event_id for answer in desk.decide(batch)}
                    if data.draw(st.booleans()):
                        network.decide(data.draw(st.integers(1, 9)))
                    if data.draw(st.booleans()):
                        desk.tick()
                    if data.draw(st.booleans()):
                        desk.snapshot()
        with desk_over(folder, network) as (desk, _):
            network.decide(len(network.submitted))
            desk.tick()
            state = desk.engine.mark()
        found = in_ledger(folder)
        assert acknowledged <= {event.id for event, _, _ in found}
        agreed = [event.id for event, _, theirs in found if theirs]
        decided = [event["id"] for entry in network.entries for event in entry.body["events"]]
        assert sorted(agreed) == sorted(set(decided))  # each once
        alone = [event.id for event, _, theirs in found if not theirs]
        assert len(alone) == len(set(alone))
        for event, decision, theirs in found:
            assert decision.votes == (voted(event).votes if theirs else (None,) * 4)
        # what is remembered follows from the ledger alone
        with desk_over(folder, network) as (again, _):
            assert again.engine.mark().counters == state.counters
