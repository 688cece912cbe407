"""Evidence against a member: two statements for one height, both signed by it."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import key_of

from phalanx.errors import DataError
from phalanx.service.ledger_entry import GENESIS, seal
from phalanx.service.members import Members
from phalanx.service.statements import Statement, equivocation, evidence_flaw

A, B = key_of(0), key_of(1)
MEMBERS = Members.of({"a": A.public, "b": B.public})


def says(votes: Any = (1,), **changed: Any) -> Statement:
    given = {
        "key": A,
        "member": "a",
        "height": 7,
        "about": "vote",
        "content": {"votes": list(votes)},
        **changed,
    }
    return Statement.signed(**given)


def test_two_votes_for_one_height_are_evidence_in_either_order() -> None:
    one, other = says([1]), says([0])
    body = equivocation(one, other, MEMBERS)
    assert body == equivocation(other, one, MEMBERS)
    assert (body["member"], body["height"], body["about"]) == ("a", 7, "vote")
    assert evidence_flaw(body, MEMBERS) is None


def test_two_heads_of_one_height_are_evidence() -> None:
    heads = [
        seal(1, GENESIS, "mode", {"mode": mode}, signers={"a": A}, signatures={})[0].head
        for mode in ("shadow", "enforce")
    ]
    body = equivocation(heads[0].statement("a"), heads[1].statement("a"), MEMBERS)
    assert body["about"] == "entry"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (says([1]), "both statements say the same"),
        (says([0], height=8), "do not name one height"),
        (says([0], about="reply"), "do not name one about"),
        (says([0], member="b", key=B), "do not name one member"),
        (says([0], chain="test"), "different chains"),
        (says([0], key=B), "not signed by member 'a'"),
        (dataclasses.replace(says([0]), content={"votes": [2]}), "not signed by member 'a'"),
        (dataclasses.replace(says([0]), signature=says([0]).signature.upper()), "not signed"),
        (dataclasses.replace(says([0]), signature="no"), "not signed"),
    ],
)
def test_what_does_not_conflict_or_is_not_signed_accuses_nobody(other: Statement, said: str) -> None:
    for pair in ((says([1]), other), (other, says([1]))):
        with pytest.raises(DataError, match=said):
            equivocation(*pair, MEMBERS)


def test_a_key_that_was_replaced_counts_for_its_heights_only() -> None:
    later = MEMBERS.replaced("a", key_of(2).public, 5)
    with pytest.raises(DataError, match="not signed"):
        equivocation(says([1]), says([0]), later)
    assert equivocation(says([1], height=4), says([0], height=4), later)["height"] == 4
    gone = Members.of({"b": B.public})
    with pytest.raises(DataError, match="no member at height 7"):
        equivocation(says([1]), says([0]), gone)


@pytest.mark.parametrize(
    "change",
    [
        {"statements": [says([1]).to_json()]},
        {"statements": [says([1]).to_json(), {**says([0]).to_json(), "more": 1}]},
        {"statements": [says([1]).to_json(), {**says([0]).to_json(), "height": "7"}]},
        {"member": "b"},
        {"height": 8},
        {"statements": None},
    ],
)
def test_evidence_in_another_form_proves_nothing(change: dict[str, Any]) -> None:
    assert evidence_flaw({**equivocation(says([1]), says([0]), MEMBERS), **change}, MEMBERS)


@given(
    st.integers(0, 10**9),
    st.text(max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)
def test_a_statement_reads_back_and_holds_for_nothing_else(
    height: int, about: str, content: dict[str, int]
) -> None:
    said = Statement.signed(A, "a", height, about, content)
    assert Statement.from_json(said.to_json()) == said and said.holds(A.public) and not said.holds(B.public)
    for change in ({"member": "b"}, {"height": height + 1}, {"about": about + "x"}, {"chain": "x"}):
        assert not dataclasses.replace(said, **change).holds(A.public)
    assert not dataclasses.replace(said, content={**content, "more": 1}).holds(A.public)
