"""A ledger's events decided again: the same comes out, and what was not decided so is found and named."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service.desks import open_desk
from service.ledgers import key_of
from service.models import SMALL, many, model

from phalanx.committee import decide
from phalanx.errors import UsageError
from phalanx.service.consensus.committee_member import CommitteeMember
from phalanx.service.engine import Engine
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import batch_body
from phalanx.service.live import LivePath
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.replay import replay
from phalanx.types import Verdict

MODEL = model(threshold=0.5)
CONFIG = replace(SMALL, slots=32)
ITEMS = many(90, processes=60, seed=4)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    compiled, real = {}, LivePath.compiled

    def once(path: LivePath) -> Any:
        if path.committee is not MODEL.committee:
            return real(path)
        return compiled.setdefault(path.slots, real(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LivePath, "compiled", once)
        yield


def test_what_a_service_decided_comes_out_again(tmp_path: Path) -> None:
    for part in (slice(0, 40), slice(40, 90)):  # over a restart
        desk = open_desk(tmp_path, MODEL, CONFIG)
        for start in range(part.start, part.stop, 7):
            desk.decide(ITEMS[start : min(start + 7, part.stop)])
        desk.snapshot()
        desk.ledger.close()
    found = replay(tmp_path / "ledger", MODEL, CONFIG)
    assert found.same and (found.events, found.votes) == (90, [90] * 4)
    assert not replay(
        tmp_path / "ledger", MODEL, replace(CONFIG, slots=40)
    ).elsewhere  # other bounds: tried, at least
    with pytest.raises(UsageError, match="none of its decisions"):
        replay(tmp_path / "ledger", replace(MODEL, digest="some other"), CONFIG)
    with Ledger.open(tmp_path / "seven", key_of(0)) as ledger:
        event = ITEMS[0]
        decided = LiveDecision(
            event.id,
            event.time_ns,
            event.host,
            event.subject,
            Verdict.ALLOW,
            (Verdict.ALLOW,) * 7,
            True,
            0.0,
            False,
            {},
            (),
            MODEL.digest,
        )
        ledger.append("batch", batch_body([event], [decided], f=2, mode="shadow"))
    with pytest.raises(UsageError, match="another number of members"):
        replay(tmp_path / "seven", MODEL, CONFIG)


def written(
    folder: Path, batches: list[tuple[list[LiveEvent], list[LiveDecision], dict[str, Any] | None]]
) -> Path:
    with Ledger.open(folder, key_of(0)) as ledger:
        for events, decisions, told in batches:
            ledger.append("batch", batch_body(events, decisions, f=1, mode="shadow", consensus=told))
    return folder


def test_a_verdict_that_the_model_does_not_come_to_is_named(tmp_path: Path) -> None:
    decisions = Engine(MODEL, CONFIG).decide(ITEMS)
    at = next(i for i, each in enumerate(decisions) if i > 30 and set(each.votes) == {Verdict.ALLOW})
    votes = (Verdict.QUARANTINE,) * 4
    decisions[at] = replace(decisions[at], votes=votes, verdict=Verdict(decide(votes, 1)))
    found = replay(written(tmp_path / "l", [(ITEMS, decisions, None)]), MODEL, CONFIG)
    assert not found.same and found.otherwise == [1, 1, 1, 1] and found.verdicts == 1
    assert {each.event for each in found.differences} == {ITEMS[at].id}
    assert "verdict was" in str(found.differences[0])


@pytest.mark.parametrize("follow", [False, True])
def test_a_member_that_lies_is_named_and_no_other(tmp_path: Path, follow: bool) -> None:
    """Nodes vote on a batch before they know the answer to the one that it follows at once, and not otherwise."""
    node, batches = CommitteeMember(MODEL, 0, CONFIG), []
    waiting: tuple[list[LiveEvent], list[int]] | None = None
    block = 1
    for start in range(0, 90, 15):
        events = ITEMS[start : start + 15]
        if waiting and not follow:
            node.answered(1, waiting[1])
            waiting, block = None, block + 5
        honest = node.expected(events)
        if waiting:
            node.answered(1, waiting[1])
        node.take(events)
        decisions = []
        for own in honest:
            votes = [vote for vote in own.votes if vote is not None]
            votes[3] = Verdict(3 - votes[3])
            decisions.append(replace(own, votes=tuple(votes), verdict=Verdict(decide(votes, 1)), tolerates=1))
        told = {
            "chain": "net",
            "ordered": block,
            "height": block + 1,
            "models": [MODEL.digest] * 3 + ["other" if start < 30 else MODEL.digest],
        }
        block += 1
        batches.append((events, decisions, told))
        waiting = events, [int(decision.verdict) for decision in decisions]
    ledger = written(tmp_path / "l", batches)
    found = replay(ledger, MODEL, CONFIG, known=["oth"])
    assert (found.votes, found.otherwise) == ([90, 90, 90, 60], [0, 0, 0, 60])  # of its version alone
    assert not any(found.foreign) and replay(ledger, MODEL, CONFIG).foreign == [0, 0, 0, 30]
    with pytest.raises(UsageError, match="none of its decisions"):
        replay(ledger, replace(MODEL, digest="some other"), CONFIG)
    assert not found.verdicts and all(each.what == "member 3" for each in found.differences)
