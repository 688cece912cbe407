"""When answers are believed: f + 1 alike, from members, once; and what two answers of one member prove."""

import dataclasses
from collections.abc import Iterator

import pytest
from consensus.fake_engine import Committee, events

from phalanx.errors import DataError
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.replies import Reply, Tally, reply_to
from phalanx.service.ledger_bodies import decisions_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.statements import Statement, evidence_flaw


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Committee]:
    made = Committee(tmp_path_factory.mktemp("seven"), n=7)
    for batch in range(3):
        made.step([made.submission(batch), made.submission(100 + batch, 3)])
    made.step()
    yield made
    made.close()


def replies(committee: Committee, height: int) -> list[Reply]:
    return [
        reply_to(committee.chain, node.name, node.key, node.entries[height - 1]) for node in committee.nodes
    ]


def lie(committee: Committee, place: int, reply: Reply, **changes: object) -> Reply:
    """What a member says instead, under its signature."""
    node = committee.nodes[place]
    said = Statement.signed(
        node.key,
        node.name,
        reply.said.height,
        "reply",
        {**reply.said.content, **changes},
        committee.chain.name,
    )
    return Reply(said, reply.entry)


def test_f_plus_1_equal_answers_are_believed_once(seven: Committee) -> None:
    tally = Tally(seven.chain)
    answers = [tally.add(Reply.from_json(reply.to_json())) for reply in replies(seven, 2)]
    assert [answer is not None for answer in answers] == [False, False, True, False, False, False, False]
    agreed = answers[2]
    assert agreed is not None
    entry = seven.nodes[0].entries[1]
    assert (agreed.height, agreed.digest, agreed.head.hash) == (2, entry.body["digest"], entry.hash)
    assert set(agreed.head.signatures) == {"node0", "node1", "node2"}
    assert [tally.add(reply) for reply in replies(seven, 2)] == [None] * 7 and tally.refused == 0


def test_each_submission_gets_its_own_decisions_as_the_ledger_has_them(seven: Committee) -> None:
    tally = Tally(seven.chain)
    agreed = [tally.add(reply) for reply in replies(seven, 1)][2]
    assert agreed is not None
    entry = seven.nodes[0].entries[0]
    (one, other) = (name for name, _ in agreed.submissions)
    wanted = decisions_of(entry.body)
    for name, happened in ((one, events(0)), (other, events(100, 3))):
        where = agreed.of(name)
        assert where is not None
        assert agreed.decisions(happened, where, 2) == wanted[where]
    assert agreed.of("no such") is None


def test_liars_are_outvoted_whoever_answers_first(seven: Committee) -> None:
    honest = replies(seven, 1)
    for order in ([5, 6, 0, 1, 2, 3, 4], [0, 5, 1, 6, 2, 3, 4], [0, 1, 5, 6, 2, 3, 4]):
        tally = Tally(seven.chain)
        got = []
        for place in order:
            reply = honest[place]
            if place >= 5:
                reply = lie(seven, place, reply, verdicts="3" * len(reply.said.content["verdicts"]))
            got.append(tally.add(reply))
        (agreed,) = [answer for answer in got if answer is not None]
        assert "".join(map(str, agreed.verdicts)) == honest[0].said.content["verdicts"]
        assert not set(agreed.head.signatures) & {"node5", "node6"}


def test_two_answers_of_one_member_are_evidence_and_the_first_one_stays(seven: Committee) -> None:
    tally = Tally(seven.chain)
    honest = replies(seven, 1)
    tally.add(lie(seven, 0, honest[0], mode="enforce"))
    tally.add(honest[0])
    assert len(tally.evidence) == 1
    assert evidence_flaw(tally.evidence[0], seven.chain.keys) is None
    assert tally.evidence[0]["member"] == "node0"
    assert [tally.add(reply) is not None for reply in honest[1:4]] == [False, False, True]


def test_answers_that_no_member_signed_do_not_count(seven: Committee) -> None:
    tally = Tally(seven.chain)
    good = replies(seven, 1)[0]
    said = good.said
    bad = [
        Reply(dataclasses.replace(said, signature="00" * 64), good.entry),
        Reply(dataclasses.replace(said, member="node1"), good.entry),
        Reply(dataclasses.replace(said, member="nobody"), good.entry),
        Reply(dataclasses.replace(said, chain="other"), good.entry),
        Reply(dataclasses.replace(said, about="vote"), good.entry),
        Reply(said, "00" * 64),
        Reply(said, "nonsense"),
    ]
    assert [tally.add(reply) for reply in bad] == [None] * 7 and tally.refused == 7
    assert not tally.evidence
    for form in ({}, [], None, {"said": {}, "entry": ""}, good.to_json() | {"more": 1}):
        with pytest.raises(DataError):
            Reply.from_json(form)


def test_a_member_that_makes_heights_up_drives_out_its_own_answers_alone(seven: Committee) -> None:
    tally = Tally(seven.chain, window=4)
    honest = replies(seven, 1)
    tally.add(honest[0])
    tally.add(honest[1])
    node, entry = seven.nodes[6], seven.nodes[6].entries[0]
    for height in range(50, 100):
        made_up = Entry(height, entry.previous, entry.kind, entry.body, entry.hash, {})
        head = dataclasses.replace(made_up, signatures={node.name: "00" * 64}).head
        signature = node.key.sign(head.statement(node.name).message).hex()
        sealed = dataclasses.replace(made_up, signatures={node.name: signature})
        assert tally.add(reply_to(seven.chain, node.name, node.key, sealed)) is None
    assert tally.refused == 0
    assert tally.add(honest[2]) is not None


def test_answers_that_do_not_fit_together_bring_nothing_down(seven: Committee) -> None:
    for changes in (
        {"verdicts": "9x"},
        {"verdicts": "0"},
        {"votes": []},
        {"submissions": [1]},
        {"models": 5},
    ):
        tally = Tally(seven.chain)
        for place in range(3):  # more than f lie: nothing is promised but to go on
            assert tally.add(lie(seven, place, replies(seven, 1)[place], **changes)) is None
        assert tally.refused == 1


def test_decisions_follow_from_the_signed_votes_in_the_ledger(seven: Committee) -> None:
    keys = seven.chain.keys
    for entry in seven.nodes[0].entries:
        assert votes_flaw(entry, keys) is None
        for changes in (
            {"extensions": dict(list(entry.body["consensus"]["extensions"].items())[1:])},
            {"extensions": entry.body["consensus"]["extensions"] | {"node9": "00"}},
            {"extensions": 5},
            {"ordered": 77},
            {"chain": "other"},
        ):
            told = entry.body["consensus"] | changes
            assert votes_flaw(dataclasses.replace(entry, body={**entry.body, "consensus": told}), keys)
        body = {key: value for key, value in entry.body.items() if key != "consensus"}
        assert votes_flaw(dataclasses.replace(entry, body=body), keys) == "no network decided it"
