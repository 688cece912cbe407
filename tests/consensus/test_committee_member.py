"""A committee's member in a network: votes as the whole committee here would, remembers what the network answered."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.models import SMALL, many, model

from phalanx.errors import RunError, UsageError
from phalanx.runtime.decide import shielded
from phalanx.service.consensus.committee_member import CommitteeMember
from phalanx.service.consensus.member import Member
from phalanx.service.engine import Engine, EngineConfig, Mark
from phalanx.service.records import LiveEvent
from phalanx.stl.shield import Shield
from phalanx.stl.specs import parse_specs

MODEL = model(threshold=0.5)
CONFIG = replace(SMALL, answering="all", slots=32)
ITEMS = many(120, processes=90, seed=2)
SHARED: dict[str, Engine] = {}
BLANK: dict[str, Mark] = {}


class Reference:
    """Goes through all that happened from the beginning, at every question."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.settled: list[tuple[Sequence[LiveEvent], Sequence[int]]] = []
        self.taken: Sequence[LiveEvent] = ()

    def votes(self, events: Sequence[LiveEvent]) -> list[int]:
        engine = blank()
        for batch, verdicts in self.settled:
            engine.decide(batch, verdicts)
        engine.decide(self.taken)
        return [int(decision.votes[self.place] or 0) for decision in engine.decide(events)]


def blank() -> Engine:
    """An engine that knows nothing; compiled once."""
    engine = SHARED.setdefault("reference", Engine(MODEL, CONFIG))
    if "blank" not in BLANK:
        BLANK["blank"] = engine.mark()
    mark = BLANK["blank"]
    engine.back(mark)
    BLANK["blank"] = engine.mark()
    return engine


def member(place: int = 1) -> CommitteeMember:
    """A member that knows nothing; compiled once."""
    made = CommitteeMember(MODEL, place, CONFIG)
    made._engine._run = blank()._run
    return made


def test_it_is_a_member() -> None:
    assert isinstance(member(), Member) and member().model == MODEL.digest


@settings(max_examples=25)
@given(data=st.data())
def test_whatever_is_asked_taken_and_answered_it_votes_as_one_that_goes_through_all_of_it_again(
    data: st.DataObject,
) -> None:
    place = data.draw(st.integers(0, 3))
    tested, reference = member(place), Reference(place)
    left, height = list(ITEMS), 0

    def batch() -> list[LiveEvent]:
        n = data.draw(st.integers(1, 24))
        return [left.pop(0) for _ in range(min(n, len(left)))]

    waiting: list[LiveEvent] = []
    for _ in range(data.draw(st.integers(1, 5))):
        if not left:
            break
        wanted = batch()
        for _ in range(data.draw(st.integers(0, 2))):  # asked, of this batch or of one that never comes
            asked = data.draw(st.sampled_from([wanted, wanted[: len(wanted) // 2 + 1], left[:3] or wanted]))
            assert tested.votes(asked) == reference.votes(asked)
        if waiting:
            honest = engine_verdicts(reference, waiting)
            lied = data.draw(st.booleans())
            verdicts = [3 - v for v in honest] if lied else honest
            height += 1
            tested.answered(height, verdicts)
            reference.settled.append((waiting, verdicts))
            reference.taken = ()
        tested.take(wanted)
        reference.taken = waiting = wanted
    probe = ITEMS[:5]
    assert tested.votes(probe) == reference.votes(probe)
    assert tested.height == height


def engine_verdicts(reference: Reference, events: Sequence[LiveEvent]) -> list[int]:
    engine = blank()
    for batch, verdicts in reference.settled:
        engine.decide(batch, verdicts)
    return [int(decision.verdict) for decision in engine.decide(events)]


def test_what_was_answered_is_remembered_and_not_what_was_voted() -> None:
    """The votes on what follows depend on the answers: otherwise the law above would say little."""
    honest, lied = member(), member()
    engine = blank()
    verdicts = [int(decision.verdict) for decision in engine.decide(ITEMS[:60])]
    for each, answers in ((honest, verdicts), (lied, [3 - v for v in verdicts])):
        each.take(ITEMS[:60])
        each.answered(1, answers)
    assert honest.votes(ITEMS[60:]) != lied.votes(ITEMS[60:])


def test_a_restart_goes_on_from_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "member.state"
    first = CommitteeMember(MODEL, 0, CONFIG, snapshot=path, snapshot_every=40)
    for height, start in enumerate(range(0, 100, 20), start=1):
        batch = ITEMS[start : start + 20]
        first.votes(batch)
        first.take(batch)
        first.votes(ITEMS[100:])  # already asked about what comes after
        first.answered(height, [2] * 20)
    expected = first.votes(ITEMS[100:])
    again = CommitteeMember(MODEL, 0, CONFIG, snapshot=path)
    assert again.height == 4
    again.take(ITEMS[80:100])
    again.answered(5, [2] * 20)
    assert again.votes(ITEMS[100:]) == expected
    behind = CommitteeMember(MODEL, 0, CONFIG, snapshot=path, ledger_height=3)
    assert behind.height == 0  # of another ledger
    with monkeypatch.context() as patch:  # a full disk takes no snapshot, and the member goes on

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Engine, "save", full)
        member = CommitteeMember(MODEL, 0, CONFIG, snapshot=tmp_path / "none", snapshot_every=1)
        member.take(ITEMS[:3])
        member.answered(1, [0] * 3)
        assert member.height == 1 and member.votes(ITEMS[3:6])
    path.write_bytes(path.read_bytes()[:-1])
    assert CommitteeMember(MODEL, 0, CONFIG, snapshot=path).height == 0


def test_what_cannot_be_a_member_is_refused() -> None:
    with pytest.raises(UsageError, match="one node a member"):
        CommitteeMember(MODEL, 4, CONFIG)
    spec = parse_specs("@spec calm\nalways (sum(alerted, 15) <= 3)")
    behind = replace(MODEL, committee=shielded(MODEL.committee, Shield(tuple(spec))))
    with pytest.raises(UsageError, match="no shield"):
        CommitteeMember(behind, 0, CONFIG)
    with pytest.raises(UsageError, match="cannot follow others"):
        Engine(behind, EngineConfig(slots=64, batch=16, host_share=1.0)).decide(ITEMS[:2], [0, 0])
    with pytest.raises(RunError, match="no batch"):
        member().answered(1, [0])
