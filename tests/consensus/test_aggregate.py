"""From votes to decisions: against a rule written down anew, exhaustively for four members."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from phalanx.service.consensus.aggregate import decide_batch
from phalanx.service.consensus.extension import Vote
from phalanx.service.ledger_bodies import batch_body, batch_flaw
from phalanx.service.records import LiveEvent
from phalanx.types import Verdict


def by_definition(cast: Sequence[int | None], f: int) -> int:
    """The rule of the threat model, from the sorted votes."""
    received = sorted((vote for vote in cast if vote is not None), reverse=True)
    if len(received) < 2 * f + 1:
        return 1
    if received[2 * f] == 3:  # 2f + 1 say quarantine
        return 3
    if received[len(received) // 2] >= 2:  # more than half say block or more
        return 2
    return 1 if received[f] >= 1 else 0  # f + 1 say alert or more


def event(number: int) -> LiveEvent:
    return LiveEvent(f"e{number}", number, "web", "web:1", "EXECUTE")


def decided(columns: Sequence[tuple[int, ...] | None], f: int, count: int) -> list[int]:
    votes = [None if column is None else Vote(f"m{i % 2}", column) for i, column in enumerate(columns)]
    happened = [event(i) for i in range(count)]
    decisions = decide_batch(happened, votes, f)
    body = batch_body(happened, decisions, f=f, mode="shadow")
    assert batch_flaw(body) is None  # the ledger's own check follows the votes
    for place, decision in enumerate(decisions):
        cast = [None if column is None else column[place] for column in columns]
        heard = [vote for vote in cast if vote is not None]
        assert list(decision.votes) == [None if vote is None else Verdict(vote) for vote in cast]
        assert decision.quorum == (len(heard) >= 2 * f + 1) and decision.tolerates == f
        assert decision.score == (sum(v >= 1 for v in heard) / len(heard) if heard else 0.0)
    return [int(decision.verdict) for decision in decisions]


def test_every_vote_of_four_members_received_or_not() -> None:
    rows = list(itertools.product(range(4), repeat=4))
    for received in itertools.product((True, False), repeat=4):
        columns = [tuple(row[i] for row in rows) if received[i] else None for i in range(4)]
        wanted = [
            by_definition([vote if there else None for vote, there in zip(row, received, strict=True)], 1)
            for row in rows
        ]
        assert decided(columns, 1, len(rows)) == wanted


@given(st.integers(1, 13).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (n - 1) // 3))), st.data())
def test_any_committee(size: tuple[int, int], data: st.DataObject) -> None:
    n, f = size
    column = st.none() | st.tuples(*[st.integers(0, 3)] * 5)
    columns = [data.draw(column) for _ in range(n)]
    wanted = [by_definition([None if c is None else c[i] for c in columns], f) for i in range(5)]
    assert decided(columns, f, 5) == wanted


@given(
    st.lists(st.none() | st.tuples(*[st.integers(0, 3)] * 3), min_size=7, max_size=7),
    st.permutations(range(7)),
)
def test_members_places_do_not_matter(columns: list[tuple[int, ...] | None], order: list[int]) -> None:
    assert decided(columns, 2, 3) == decided([columns[i] for i in order], 2, 3)


def test_models_are_named_once_each_in_the_members_order() -> None:
    votes = [Vote("b", (0,)), Vote("a", (0,)), None, Vote("b", (0,))]
    assert decide_batch([event(0)], votes, 1)[0].model == "b+a"
    assert decide_batch([event(0)], [None] * 4, 1)[0].model == ""
