"""The desk without a committee: what is decided leads to what it leads to once, whoever asks again, and when."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service.desks import decision, event, open_desk
from service.hands import Hands
from service.ledgers import verified
from service.models import model

from phalanx.errors import DataError, UsageError
from phalanx.service.commands import Command
from phalanx.service.desk import Desk
from phalanx.service.engine import EngineConfig
from phalanx.service.guards import AllowRule
from phalanx.service.ledger import LedgerFullError, read_entries
from phalanx.service.policy import SafetyPolicy

DAY_S = 86_400
MODEL = model()


class Want:
    """An engine that decides what each event wants."""

    def __init__(self, model: Any, config: Any) -> None:
        self.counters = {"events": 0}

    def decide(self, events: Sequence[Any]) -> list[Any]:
        self.counters["events"] += len(events)
        return [decision(each) for each in events]

    def save(self, *_: Any, **__: Any) -> None: ...


class Place:
    """A folder with a desk, which is opened and closed again and again."""

    def __init__(self, folder: Path, clock: Hands) -> None:
        self.folder, self.clock = folder, clock
        self.sent: list[Command] = []

    @contextmanager
    def open(self) -> Iterator[Desk]:
        last = max((entry.height for entry in self._entries()), default=0)
        desk = open_desk(
            self.folder,
            MODEL,
            EngineConfig(),
            policy=SafetyPolicy(enforce=True, alert_repeat_s=600),
            clock=self.clock,
            send=self.sent.extend,
            sent=last,
        )
        try:
            yield desk
        finally:
            desk.ledger.close()

    def _entries(self) -> list[Any]:
        return list(read_entries(self.folder / "ledger")) if (self.folder / "ledger").exists() else []

    def restricted(self) -> list[str]:
        """Processes that a restriction began on, and forgets them."""
        found = [command.subject for command in self.sent if command.action in ("deny", "contain")]
        self.sent.clear()
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("phalanx.service.desk.Engine", Want)
    return Place(tmp_path, Hands())


FIRST = event(1, want="block", path="/etc/shadow")
IN_FORCE = event(2, want="block", path="/etc/shadow")  # led to nothing: the restriction was there already


def test_an_id_with_another_event_behind_it_restricts_nobody(place: Place) -> None:
    another = replace(event(2, path="/var/lib/db"), subject="victim", host="db-1")
    with place.open() as desk:
        assert desk.decide([FIRST])[0].outcome.effect == "block" and place.restricted() == ["p"]
        answers = desk.decide([IN_FORCE, another])
        assert [answer.repeated for answer in answers] == [False, True]
        assert answers[0].outcome.reasons == ("in-force",)
        assert desk.decide([another])[0].outcome.effect == "none"
        assert place.restricted() == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "EXECUTE"},
        {"parent": "q"},
        {"attributes": {"path": "/tmp/evil"}},
        {"attributes": dict(FIRST.attributes)},
        {"attributes": {**FIRST.attributes, "exit": -2}},
        {"attributes": {**FIRST.attributes, "exit": -1.0}},
        {"host": "h2"},
        {"time_ns": 10**18 + 1},
    ],
    ids=str,
)
def test_an_id_names_an_event_with_all_its_content(place: Place, change: dict[str, Any]) -> None:
    same = replace(FIRST, attributes={"exit": -1, **FIRST.attributes})
    other = replace(same, **change)
    with place.open() as desk:
        answers = desk.decide([same, other, same])
        assert [answer.another for answer in answers] == [False, True, False]
    with place.open() as desk:  # what is known after a restart
        turned = replace(same, attributes={**FIRST.attributes, "exit": -1})
        answers = desk.decide([other, turned])
        assert [answer.another for answer in answers] == [True, False]


def test_a_start_that_is_refused_leaves_the_ledger_as_it_was(place: Place) -> None:
    with place.open() as desk:
        for i in range(6):
            desk.decide([event(i)])
    (file,) = (place.folder / "ledger").glob("*.ndjson")
    text = file.read_bytes()
    spoilt = text.replace(b'"e2"', b'"e9"', 1)
    assert spoilt != text
    file.write_bytes(spoilt)
    opening = [("mode", {"mode": "enforce", "why": "start"})]
    for _ in range(2):
        with pytest.raises(DataError, match="hash"):
            open_desk(place.folder, MODEL, EngineConfig(), indexed=6, opening=opening)
        assert file.read_bytes() == spoilt
    file.write_bytes(text)
    too_long = AllowRule("ours", place.clock.wall + 400 * DAY_S * 10**9, host="db-1")
    policy = SafetyPolicy(enforce=True, allow=(too_long,))
    with pytest.raises(UsageError, match="366 days"):
        open_desk(place.folder, MODEL, EngineConfig(), indexed=6, opening=opening, policy=policy)
    assert file.read_bytes() == text


def test_what_led_to_nothing_leads_to_nothing_when_it_comes_again(place: Place) -> None:
    with place.open() as desk:
        desk.decide([FIRST])
        desk.decide([IN_FORCE, event(3, want="alert"), event(4, want="alert")])
        place.restricted()
        place.clock.pass_s(DAY_S)
        desk.tick()
        for again in (IN_FORCE, event(4, want="alert"), FIRST):
            (answer,) = desk.decide([again])
            assert answer.repeated and place.restricted() == [] and not answer.outcome.commands


@pytest.mark.parametrize("days", [0, 3])
def test_a_restart_judges_nothing_again(place: Place, days: int) -> None:
    with place.open() as desk:
        desk.decide([FIRST])
        desk.decide([IN_FORCE, event(5)])
        desk.decide([event(3, want="alert")])
        desk.decide([event(4, want="alert")])  # told a moment ago: nothing
        place.clock.pass_s(1000)
        desk.tick()
        height = desk.ledger.head.height
    place.sent.clear()
    for _ in range(2):
        place.clock.pass_s(days * DAY_S)
        with place.open() as desk:
            assert desk.ledger.head.height == height and place.sent == []
            assert desk.safety.counts["rule/considered"] == 0  # not even asked about
            assert desk.decide([IN_FORCE])[0].repeated and place.sent == []
            (fresh,) = desk.decide([event(f"{days} {place.clock.wall}", want="block", path="/other")])
            assert fresh.outcome.effect == "block"  # what is new still counts
            place.sent.clear()
            height = desk.ledger.head.height
            place.clock.pass_s(1000)
            desk.tick()
            place.sent.clear()
            height = desk.ledger.head.height
    assert not verified(place.folder / "ledger").findings


def test_what_a_kill_left_unconsidered_is_considered_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as desk:
        desk.decide([FIRST])
        place.sent.clear()
        monkeypatch.setattr(desk.safety, "consider", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.decide([replace(FIRST, id="e9", subject="p9"), replace(IN_FORCE, id="e10")])
    with place.open() as desk:
        assert place.restricted() == ["p9"]
        assert desk.safety.state.done == 3
    with place.open():
        assert place.restricted() == []


def test_a_full_disk_reads_what_follows_the_snapshot_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as desk:
        for number in range(10, 16):
            desk.decide([event(number)])
        head = desk.ledger.head
        monkeypatch.setattr(desk, "_restored", lambda: {"height": head.height - 1, "hash": None})
        started: list[int] = []
        monkeypatch.setattr(
            "phalanx.service.desk.read_entries",
            lambda folder, first: started.append(first) or iter(()),
        )
        monkeypatch.setattr(desk.ledger, "append", _full)
        with pytest.raises(LedgerFullError):
            desk.decide([event(20)])
        assert started == [head.height - 1]
        monkeypatch.undo()


def _full(*_: Any, **__: Any) -> Any:
    raise LedgerFullError("the disk is full")


def test_a_full_disk_makes_nothing_be_judged_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the decisions were considered could not be written down, then nothing could; a while later there is room."""
    with place.open() as desk:
        desk.decide([FIRST])
        journal = desk.safety._journal
        monkeypatch.setattr(desk.safety, "_journal", _full)
        desk.decide([IN_FORCE])
        with monkeypatch.context() as full:
            full.setattr(desk.ledger, "append", _full)
            with pytest.raises(LedgerFullError):
                desk.decide([event(20)])
        monkeypatch.setattr(desk.safety, "_journal", journal)
        place.restricted()
        place.clock.pass_s(1000)
        desk.tick()
        assert desk.decide([event(20), IN_FORCE])[1].repeated and place.restricted() == []
    with place.open():
        assert place.restricted() == []


def test_a_restart_hands_on_all_commands_at_once(place: Place) -> None:
    """Whoever takes some of them notes the head's height for all: after a kill in between the rest would be lost."""
    with place.open() as desk:
        for number in range(3):
            desk.decide([replace(FIRST, id=f"e{number}", subject=f"p{number}")])
    calls: list[list[str]] = []
    desk = open_desk(
        place.folder,
        MODEL,
        EngineConfig(),
        policy=SafetyPolicy(enforce=True),
        clock=place.clock,
        send=lambda commands: calls.append([command.action for command in commands]),
    )
    desk.ledger.close()
    assert [call for call in calls if call] == [["deny"] * 3]


def test_what_an_operators_refused_question_ends_is_sent_at_once(place: Place) -> None:
    with place.open() as desk:
        restriction = desk.decide([FIRST])[0].outcome.restriction
        place.sent.clear()
        place.clock.pass_s(DAY_S)
        for _ in range(2):
            with pytest.raises(UsageError, match="is expired"):
                desk.act(lambda safety: safety.undo(restriction, by="ann"))
            assert [command.action for command in place.sent] == ["allow"]


def test_a_snapshot_ahead_of_the_ledger_is_not_gone_on_from(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with place.open() as desk:
        desk.decide([event(1), event(2)])
    (place.folder / "state").write_bytes(b"a snapshot")

    def ahead(self: Want, path: Path) -> dict[str, Any]:
        self.counters["events"] = 99
        return {"height": 7, "hash": "0" * 64}

    monkeypatch.setattr(Want, "restore", ahead, raising=False)
    with place.open() as desk:
        assert desk.engine.counters["events"] == 0 and "ahead of the ledger" in caplog.text
