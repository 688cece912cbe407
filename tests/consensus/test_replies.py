"""When answers are believed: f + 1 alike, from members, once; and what two answers of one member prove."""

import dataclasses
from collections.abc import Iterator

import pytest
from consensus.fake_engine import Committee, events

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.chain import Chain, ChainMember
from phalanx.service.consensus.door import message
from phalanx.service.consensus.replies import Reply, Tally, _well_formed, reply_bytes, reply_to
from phalanx.service.consensus.submission import SUBMISSION_EVENTS
from phalanx.service.ledger_bodies import decisions_of
from phalanx.service.ledger_entry import ENTRY_LIMIT, Entry
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


def at_height(committee: Committee, place: int, height: int, **changes: object) -> Reply:
    """What a member makes up about a height, under its signatures."""
    node, entry = committee.nodes[place], committee.nodes[place].entries[0]
    made_up = Entry(height, entry.previous, entry.kind, entry.body, entry.hash, {node.name: "00" * 64})
    signature = node.key.sign(made_up.head.statement(node.name).message).hex()
    reply = reply_to(
        committee.chain, node.name, node.key, dataclasses.replace(made_up, signatures={node.name: signature})
    )
    return lie(committee, place, reply, **changes) if changes else reply


def test_a_member_that_makes_heights_up_fills_its_own_places_alone_and_few(seven: Committee) -> None:
    tally = Tally(seven.chain, window=4)
    honest = replies(seven, 1)
    tally.add(honest[0])
    tally.add(honest[1])
    for height in (*range(2, 100), 10**12):
        assert tally.add(at_height(seven, 6, height)) is None
    assert tally.refused == 95 and set(tally._heard["node6"]) == {2, 3, 4, 5}
    assert tally.add(honest[2]) is not None
    for height in range(2, 100):  # nor do they pile up while the ledger goes on
        tally.advance(height)
        tally.add(at_height(seven, 6, height + 4))
        tally.add(at_height(seven, 6, 1))
        assert all(height - 4 <= at <= height + 4 for heard in tally._heard.values() for at in heard)
    assert len(tally._heard["node6"]) == 9 and not tally._agreed


def test_what_was_passed_on_is_agreed_on_no_more_but_still_proves_a_lie(seven: Committee) -> None:
    tally = Tally(seven.chain, window=4)
    honest = replies(seven, 1)
    tally.add(honest[0])
    tally.advance(2)
    assert [tally.add(reply) for reply in honest[1:]] == [None] * 6 and tally.refused == 0
    tally.add(lie(seven, 0, honest[0], mode="enforce"))
    assert [body["member"] for body in tally.evidence] == ["node0"]


def test_a_lie_is_proved_once_a_height_and_a_few_times_a_member(seven: Committee) -> None:
    tally = Tally(seven.chain, window=64)
    for height in range(1, 40):
        tally.add(at_height(seven, 6, height))
        for mode in ("enforce", "shadow"):
            for batch in ("", "0" * 64, "1" * 64):
                tally.add(at_height(seven, 6, height, mode=mode, batch=batch))
    assert [body["height"] for body in tally.evidence] == list(range(1, 9))
    tally.add(at_height(seven, 5, 1))
    tally.add(at_height(seven, 5, 1, mode="enforce"))
    assert tally.evidence[-1]["member"] == "node5"
    for body in tally.evidence:
        assert evidence_flaw(body, seven.chain.keys) is None
        assert len(canonical(body)) <= 2 * reply_bytes(seven.chain)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdicts": "9x"},
        {"verdicts": "0"},
        {"verdicts": ["0"] * 7},
        {"votes": []},
        {"votes": ["0"] * 7},
        {"votes": ["00000009"] * 7},
        {"submissions": [1]},
        {"submissions": [["a" * 64, 7.0]]},
        {"submissions": [["a" * 64, 8], ["b" * 64, -1]]},
        {"submissions": [["a" * 100_000, 7]]},
        {"models": 5},
        {"models": ["m" * 65, *[None] * 6]},
        {"models": ["\n", *[None] * 6]},
        {"mode": "m" * (1 << 20)},
        {"mode": {}},
        {"batch": None},
        {"batch": "b" * 10_000},
        {"entry": "A" * 64},
        {"more": ["x"] * 100_000},
    ],
    ids=lambda changes: f"{next(iter(changes))}",
)
def test_answers_that_no_honest_node_gives_are_refused_and_not_kept(
    seven: Committee, changes: dict[str, object]
) -> None:
    tally = Tally(seven.chain)
    assert len(replies(seven, 1)[0].said.content["verdicts"]) == 7
    for place in range(3):  # more than f lie: nothing is promised but to go on
        assert tally.add(lie(seven, place, replies(seven, 1)[place], **changes)) is None
    assert tally.refused == 3 and not any(tally._heard.values())
    assert [tally.add(reply) is not None for reply in replies(seven, 1)[:3]] == [False, False, True]
    assert not tally.evidence


@pytest.mark.parametrize(("n", "events"), [(1, 1), (4, 1024), (4, 8192), (31, 8192)])
def test_the_longest_honest_answer_is_within_its_bound_and_near_it(n: int, events: int) -> None:
    names = [f"{i:040d}" for i in range(n)]
    members = tuple(ChainMember(name, f"{i:064x}", f"{n + i:064x}") for i, name in enumerate(names))
    chain = Chain("c" * 40, members, {"g": "f" * 64}, "enforce", batch_events=events)
    most = max(events, SUBMISSION_EVENTS)
    content = {
        "batch": "b" * 64,
        "entry": "e" * 64,
        "submissions": [["a" * 64, 1]] * most,
        "verdicts": "3" * most,
        "votes": ["3" * most] * n,
        "models": ['"' * 64] * n,
        "mode": "enforce",
    }
    said = Statement(names[0], 10**18, "reply", content, "5" * 128, chain.name)
    length = len(message(Reply(said, "5" * 128).to_json()))
    assert length <= reply_bytes(chain) < 1.1 * length + 2048
    assert _well_formed(chain, content)
    assert not _well_formed(chain, content | {"verdicts": "3" * (most + 1)})
    assert 2 * reply_bytes(chain) < ENTRY_LIMIT  # evidence fits into a ledger
    window = Tally(chain).window
    assert window == 8 or 2 * n * window * reply_bytes(chain) <= 64 << 20


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
