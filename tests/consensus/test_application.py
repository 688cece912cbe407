"""The state machine of all nodes, driven by an engine without a network: honest heights, liars, crashes anywhere."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from consensus.fake_engine import Committee, Decided, Node, events
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.errors import DataError
from phalanx.service.consensus.abci import abci_types_pb2 as abci
from phalanx.service.consensus.ballots import BallotBox, collect
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.extension import Vote, pack
from phalanx.service.consensus.member import DrillMember
from phalanx.service.ledger_bodies import decisions_of, events_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.ledger_files import read_entries
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.records import LiveEvent
from phalanx.service.statements import evidence_flaw


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Committee]:
    made = Committee(tmp_path)
    yield made
    made.close()


def decided(node: Node) -> list[Entry]:
    return list(read_entries(node.ledger_folder))


def accepted(committee: Committee, txs: Sequence[bytes]) -> int:
    """How many nodes vote for a proposal."""
    return sum(committee.accepts(node.place, txs) for node in committee.alive)


def test_a_batch_is_ordered_then_decided_by_the_votes_of_all(four: Committee) -> None:
    four.step([four.submission(0, 5)])
    assert all(node.application.state.pending is not None for node in four.nodes)
    four.step()
    for node in four.nodes:
        (entry,) = decided(node)
        assert events_of(entry.body) == events(0, 5)
        for event, decision in zip(events(0, 5), decisions_of(entry.body), strict=True):
            wanted = [DrillMember(f"node{i}", 0.5).votes([event])[0] for i in range(4)]
            assert list(decision.votes) == wanted and decision.tolerates == 1 and decision.quorum
        told = entry.body["consensus"]
        assert (told["ordered"], told["height"], told["next"]) == (1, 2, [])
        assert node.entries == [entry] and list(entry.signatures) == [node.name]
    heads = {node.application.state.head.hash for node in four.nodes}
    assert heads == {decided(four.nodes[0])[0].hash}


def test_the_app_hash_changes_where_a_batch_is_ordered_and_at_no_other_height(four: Committee) -> None:
    start = four.init_chain(four.nodes[0])
    assert four.step() == start and four.step() == start
    ordered = four.step([four.submission(0)])
    assert ordered != start
    assert [four.step() for _ in range(3)] == [ordered] * 3  # the engine makes the first of them, then rests
    assert four.step([four.submission(1)]) not in (start, ordered)


def test_the_app_hash_binds_every_decision_before_it(four: Committee) -> None:
    four.step([four.submission(0)])
    box = collect(four.chain, four.last_commit())
    # the same batch, decided from other votes, then the same next batch
    after = []
    for extensions in (box.extensions, box.extensions[1:]):
        block = Decided([BallotBox(0, extensions).encode(), four.submission(1)], 2, 0, four.commit_info(), {})
        after.append(four.finalize(four.nodes[0], block).app_hash)
    assert after[0] != after[1]


def test_heights_that_decide_one_batch_and_order_the_next(four: Committee) -> None:
    for batch in range(6):
        four.step([four.submission(batch), four.submission(100 + batch)])
    four.step()
    for node in four.nodes:
        got = [events_of(entry.body) for entry in decided(node)]
        assert got == [events(batch) + events(100 + batch) for batch in range(6)]
        found = verify_ledger(node.ledger_folder, four.chain.keys, needed=1)
        assert not found.findings and found.decisions == 48


def test_what_was_ordered_is_not_ordered_again(four: Committee) -> None:
    again = four.submission(0)
    four.step([again])
    assert four.propose(0, [again]) == [collect(four.chain, four.last_commit()).encode()]
    for _ in range(3):
        assert accepted(four, [*four.propose(0, []), again]) == 0
        four.step()
    check = abci.RequestCheckTx(tx=again)
    assert "ordered already" in four.nodes[0].application.handle("check_tx", check).log
    signed_anew = four.submission(0)  # the same events under another signature
    assert signed_anew != again and accepted(four, [signed_anew]) == 0


def test_a_block_with_the_same_events_twice_is_refused(four: Committee) -> None:
    one = four.submission(0)
    assert four.propose(0, [one, one]) == [one]
    assert accepted(four, [one, one]) == 0


def test_a_submission_is_good_for_a_window_of_entries(tmp_path: Path) -> None:
    made = Committee(tmp_path, window=3)
    old, far = made.submission(99, base=0), made.submission(98, base=1000)
    for batch in range(3):
        assert accepted(made, made.propose(0, [old])) == 4
        assert made.propose(0, [far])[1:] == [] and accepted(made, [*made.propose(0, []), far]) == 0
        made.step([made.submission(batch)])
    made.step()
    assert made.propose(0, [old]) == [] and accepted(made, [old]) == 0
    told = made.nodes[0].application.handle("check_tx", abci.RequestCheckTx(tx=old)).log
    assert "sign it anew" in told
    assert made.nodes[0].application.handle("check_tx", abci.RequestCheckTx(tx=far)).code == 1
    near = made.submission(97, base=5)  # of a gateway that has seen more than this node
    assert made.nodes[0].application.handle("check_tx", abci.RequestCheckTx(tx=near)).code == 0
    assert made.propose(0, [near]) == [] and accepted(made, [near]) == 0
    made.close()


def test_blocks_hold_as_many_events_as_the_chain_allows(tmp_path: Path) -> None:
    made = Committee(tmp_path, batch_events=8)
    three = [made.submission(batch) for batch in range(3)]
    assert made.propose(0, three) == three[:2]
    assert accepted(made, three) == 0 and accepted(made, three[:2]) == 4
    assert made.propose(0, three, max_bytes=len(three[0]) + 20) == three[:1]
    large = made.submission(9, 20)
    assert made.propose(0, [large]) == [large] and accepted(made, [large]) == 4
    made.close()


# Liars


def test_a_proposer_can_leave_out_f_votes_and_no_more(four: Committee) -> None:
    four.step([four.submission(0, 20)])
    box = collect(four.chain, four.last_commit())
    for kept in ((0, 1, 2), (1, 2, 3), (0, 2, 3)):
        fewer = BallotBox(box.round, tuple(box.extensions[i] for i in kept))
        assert accepted(four, [fewer.encode()]) == 4
    two = BallotBox(box.round, box.extensions[:2])
    assert accepted(four, [two.encode()]) == 0
    four.decide([BallotBox(box.round, box.extensions[1:]).encode()])
    for decision in decisions_of(decided(four.nodes[0])[0].body):
        assert decision.votes[0] is None and decision.quorum


def test_a_proposer_can_neither_forge_nor_repeat_nor_withhold(four: Committee) -> None:
    four.step([four.submission(0)])
    box = collect(four.chain, four.last_commit())
    first, second, third, fourth = box.extensions
    forged = (0, second[1], first[2])
    fresh = four.submission(1)
    lies = {
        "no votes": [],
        "no votes, a batch": [fresh],
        "noise": [b"V\x00"],
        "forged": [BallotBox(box.round, (forged, second, third, fourth)).encode()],
        "repeated": [BallotBox(box.round, (first, first, second, third)).encode()],
        "votes after a batch": [fresh, box.encode()],
        "votes twice": [box.encode(), box.encode()],
        "a transaction that is none": [box.encode(), b"hello"],
        "an edited submission": [box.encode(), fresh[:-1] + b" "],
    }
    for name, txs in lies.items():
        assert accepted(four, txs) == 0, name
    assert accepted(four, [box.encode(), fresh]) == 4
    four.step()
    assert accepted(four, [box.encode()]) == 0, "votes where no batch waits for them"


def test_votes_of_an_earlier_height_are_no_votes_on_this_one(four: Committee) -> None:
    four.step([four.submission(0)])
    earlier = collect(four.chain, four.last_commit())
    four.step([four.submission(1)])
    assert accepted(four, [earlier.encode()]) == 0


def test_a_flawed_block_that_was_decided_all_the_same_is_carried_out_alike(four: Committee) -> None:
    four.step([four.submission(0)])
    good = four.submission(1)
    four.decide(
        [b"V\x00", b"hello", good]
    )  # more than f members lie; the others still agree with one another
    for node in four.nodes:
        (entry,) = decided(node)
        assert all(d.verdict == 1 and not d.quorum for d in decisions_of(entry.body))
        assert node.application.state.pending is not None
    four.step()
    assert events_of(decided(four.nodes[0])[1].body) == events(1)


@pytest.mark.parametrize(
    "lie",
    [b"", b"noise", bytes(8192), "flip", "other batch"],
    ids=["silent", "noise", "long", "flipped bits", "other batch's votes"],
)
def test_lying_extensions_are_abstentions(four: Committee, lie: bytes | str) -> None:
    four.step([four.submission(0)])
    last = collect(four.chain, four.last_commit()).extensions[3][1]
    four.step([four.submission(1)], proposer=0)

    def sent(place: int, own: bytes) -> bytes:
        if place != 3:
            return own
        if lie == "flip":
            return own[:80] + bytes([own[80] ^ 1]) + own[81:]
        return last if lie == "other batch" else bytes(lie)  # type: ignore[arg-type]

    txs = four.propose(0, [four.submission(2)])
    four.decide(txs, extensions=sent)
    four.step()
    entry = decided(four.nodes[0])[-1]
    assert events_of(entry.body) == events(2)
    for decision in decisions_of(entry.body):
        assert decision.votes[3] is None and None not in decision.votes[:3] and decision.quorum


def test_a_member_that_tells_nodes_different_votes_leaves_evidence(four: Committee) -> None:
    liar = four.nodes[3]
    four.decide(four.propose(0, [four.submission(0)]))
    batch = four.nodes[0].application.state.pending
    assert batch is not None
    ballot = batch.ballot(four.chain)
    carried = four.blocks[-1].extensions[3][0]
    other = pack(liar.key, liar.name, ballot, Vote("m", (3, 3, 3, 3)))
    told = {0: other, 1: carried, 2: b"noise"}
    for place, extension in told.items():
        request = abci.RequestVerifyVoteExtension(
            vote_extension=extension, height=1, validator_address=four.chain.members[3].address
        )
        assert four.nodes[place].application.handle("verify_vote_extension", request).status == 1
    four.step()
    assert [len(node.evidence) for node in four.nodes] == [1, 0, 0, 0]
    (body,) = four.nodes[0].evidence
    assert body["member"] == "node3" and evidence_flaw(body, four.chain.keys) is None


def test_extensions_that_fit_are_let_pass_and_longer_ones_refused(four: Committee) -> None:
    def verdict(size: int) -> int:
        request = abci.RequestVerifyVoteExtension(vote_extension=bytes(size), height=1)
        return four.nodes[0].application.handle("verify_vote_extension", request).status

    assert [verdict(size) for size in (0, 1, 8192, 8193)] == [1, 1, 1, 2]


def test_without_a_quorum_of_votes_the_answer_is_alert(four: Committee) -> None:
    txs = four.propose(0, [four.submission(0, 30)])
    four.decide(txs, extensions=lambda place, own: own if place < 2 else b"")
    four.step()
    for decision in decisions_of(decided(four.nodes[0])[0].body):
        assert decision.verdict == 1 and not decision.quorum


# Members that fail


class Broken(DrillMember):
    """Fails at votes, or at taking a batch in, from a batch on."""

    def __init__(self, name: str, at: str) -> None:
        super().__init__(name)
        self.at = at
        self.told: list[str] = []

    def votes(self, events: Sequence[LiveEvent]) -> list[int]:
        if self.at == "votes" and events[0].id == "e-1-0":
            raise RuntimeError("a member's own fault")
        if self.at == "range":
            return [7] * len(events)
        if self.at == "count":
            return [0]
        return super().votes(events)

    def take(self, events: Sequence[LiveEvent]) -> None:
        self.told.append(f"take {events[0].id}")
        if self.at == "take" and events[0].id == "e-1-0":
            raise RuntimeError("a member's own fault")

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        self.told.append(f"answered {height}")


@pytest.mark.parametrize(
    ("at", "abstains"),
    [("votes", [1]), ("range", [0, 1, 2]), ("count", [0, 1, 2]), ("take", [2])],
)
def test_a_member_that_fails_abstains_and_the_chain_goes_on(
    tmp_path: Path, at: str, abstains: list[int]
) -> None:
    made = Committee(tmp_path, members=lambda i: Broken("node0", at) if i == 0 else DrillMember(f"node{i}"))
    for batch in range(3):
        made.step([made.submission(batch)])
    made.step()
    for batch, entry in enumerate(decided(made.nodes[1])):
        for decision in decisions_of(entry.body):
            assert (decision.votes[0] is None) == (batch in abstains), batch
            assert decision.quorum
    made.close()


def test_a_member_is_told_each_batch_and_answer_once_in_order_and_anew_after_a_restart(
    tmp_path: Path,
) -> None:
    made = Committee(tmp_path, members=lambda i: Broken(f"node{i}", ""))
    made.step([made.submission(0)])
    made.step([made.submission(1)])
    made.step()
    made.step([made.submission(2)])
    wanted = ["take e-0-0", "answered 1", "take e-1-0", "answered 2", "take e-2-0"]
    for node in made.nodes:
        node.stop()
        assert isinstance(node.member, Broken)
        assert node.member.told == wanted
        node.member.told.clear()
        node.start()
        made.catch_up(node)
        node.stop()
        assert node.member.told == wanted
    made.close()


# Crashes


stops = st.sampled_from(["no", "no", "before", "finalized", "committed", "away"])


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 2), stops), min_size=3, max_size=9))
def test_a_node_that_stops_anywhere_comes_back_to_the_same_state(
    tmp_path_factory: pytest.TempPathFactory, heights: list[tuple[int, str]]
) -> None:
    """Node 3 is away for a height, or stops before it finalizes a block, before it commits it, or after."""
    made = Committee(tmp_path_factory.mktemp("crash"), window=3)
    victim, batch = made.nodes[3], 0
    for count, stop in heights:
        store = [made.submission(batch + i, 2) for i in range(count)]
        batch += count
        txs = made.propose(0, store)
        if stop == "away":
            made.down.add(3)
            victim.stop()
        app_hash = made.decide(txs, stops={} if stop in ("no", "away") else {3: stop})
        if stop != "no":
            victim.start()
            made.down.clear()
            assert made.catch_up(victim) == app_hash
        assert {node.application.state.app_hash for node in made.nodes} == {app_hash}
        # what it remembers of earlier submissions is the same, too: it votes as the others do
        later = [
            made.submission(b, 2, base=made.nodes[0].application.state.head.height) for b in range(batch)
        ]
        assert made.propose(3, later) == made.propose(0, later)
    made.close()
    ledgers = [[entry.hash for entry in decided(node)] for node in made.nodes]
    assert all(ledger == ledgers[0] for ledger in ledgers)
    assert not verify_ledger(victim.ledger_folder, made.chain.keys, needed=1).findings


def test_a_full_disk_stops_the_node_and_loses_nothing(
    four: Committee, monkeypatch: pytest.MonkeyPatch
) -> None:
    four.step([four.submission(0)])
    victim, real = four.nodes[3], os.write

    def full(descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(victim.ledger_folder)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    txs = four.propose(0, [four.submission(1)])
    four.down.add(3)
    four.decide(txs)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DataError, match="disk is full"):
        four.carry_out(victim, four.blocks[-1])
    monkeypatch.undo()
    victim.stop()
    victim.start()
    assert four.catch_up(victim) == four.nodes[0].application.state.app_hash
    assert decided(victim)[0].hash == decided(four.nodes[0])[0].hash


# The engine


def test_a_genesis_that_is_not_this_chains_is_refused(four: Committee) -> None:
    node = four.nodes[0]
    assert four.init_chain(node) == node.application.state.app_hash
    other = Chain(four.chain.name, four.chain.members, four.chain.gateways, mode="enforce")
    with pytest.raises(DataError, match="genesis is not that"):
        four.init_chain(node, other)
    four.step([four.submission(0)])
    four.step()
    with pytest.raises(DataError, match="begins the chain anew"):
        four.init_chain(node)


def test_a_ledger_of_another_chain_is_refused(four: Committee) -> None:
    four.step([four.submission(0)])
    four.step()
    node = four.nodes[0]
    node.stop()
    node.chain = Chain("another", node.chain.members, node.chain.gateways)
    with pytest.raises(DataError, match="is not of the chain 'another'"):
        node.start()


def test_blocks_out_of_order_stop_the_node(four: Committee) -> None:
    four.step()
    with pytest.raises(DataError, match="a block of height 7 after one of height 1"):
        four.nodes[0].application.handle("finalize_block", abci.RequestFinalizeBlock(height=7))
    with pytest.raises(DataError, match="commit without a block"):
        four.nodes[0].application.handle("commit", abci.RequestCommit())
    refused = abci.RequestProcessProposal(height=7)
    assert four.nodes[0].application.handle("process_proposal", refused).status == 2
    assert (
        four.nodes[0].application.handle("extend_vote", abci.RequestExtendVote(height=7)).vote_extension
        == b""
    )


def test_snapshots_and_queries_are_declined_in_words(four: Committee) -> None:
    handle = four.nodes[0].application.handle
    assert handle("query", abci.RequestQuery()).code == 1
    assert not handle("list_snapshots", abci.RequestListSnapshots()).snapshots
    assert handle("offer_snapshot", abci.RequestOfferSnapshot()).result == abci.ResponseOfferSnapshot.REJECT
    assert handle("load_snapshot_chunk", abci.RequestLoadSnapshotChunk()).chunk == b""
    abort = abci.ResponseApplySnapshotChunk.ABORT
    assert handle("apply_snapshot_chunk", abci.RequestApplySnapshotChunk()).result == abort
