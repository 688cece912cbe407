"""The set of signed votes that a proposer carries on: its one form, the engine's signature, what makes it count."""

import dataclasses
from pathlib import Path

import pytest
from consensus.fake_engine import ABSENT, Committee
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError
from phalanx.service.consensus.abci.abci_types_pb2 import CommitInfo
from phalanx.service.consensus.ballots import BallotBox, ballots_flaw, collect, sign_bytes
from phalanx.service.consensus.framing import Framer

# parts of a set: made into one in the tests, for what checks types draws random numbers
boxes = st.tuples(
    st.integers(0, 2**31 - 1),
    st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=50), st.binary(max_size=64)), max_size=5).map(
        tuple
    ),
)
Parts = tuple[int, tuple[tuple[int, bytes, bytes], ...]]


@given(boxes)
def test_a_set_comes_back(parts: Parts) -> None:
    box = BallotBox(*parts)
    assert BallotBox.decode(box.encode()) == box


@given(boxes, st.data())
def test_a_set_has_one_form(parts: Parts, data: st.DataObject) -> None:
    raw = BallotBox(*parts).encode()
    at = data.draw(st.integers(0, len(raw)))
    edited = raw[:at] + data.draw(st.binary(max_size=2)) + raw[at + data.draw(st.integers(0, 2)) :]
    try:
        got = BallotBox.decode(edited)
    except DataError:
        return
    assert got.encode() == edited


def canonical_vote_extension() -> type:
    """The engine's message, made from its definition: the oracle of ``sign_bytes``."""
    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto3")
    message = file.message_type.add(name="CanonicalVoteExtension")
    for number, (name, kind) in enumerate(
        [
            ("extension", fields.TYPE_BYTES),
            ("height", fields.TYPE_SFIXED64),
            ("round", fields.TYPE_SFIXED64),
            ("chain_id", fields.TYPE_STRING),
        ],
        start=1,
    ):
        message.field.add(name=name, number=number, type=kind, label=fields.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oracle.CanonicalVoteExtension"))


@given(st.binary(max_size=300), st.integers(0, 2**62), st.integers(0, 2**31 - 1), st.text(max_size=20))
def test_what_the_engine_signs_is_its_message_behind_its_length(
    extension: bytes, height: int, round_: int, chain: str
) -> None:
    wanted = canonical_vote_extension()(extension=extension, height=height, round=round_, chain_id=chain)
    signed = sign_bytes(chain, height, round_, extension)
    assert Framer().feed(signed) == [wanted.SerializeToString(deterministic=True)]


@pytest.fixture(scope="module")
def committee(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    made = Committee(tmp_path_factory.mktemp("committee"), n=7)
    made.step()
    made.step([made.submission(0)])
    yield made
    made.close()


def flaw(committee: Committee, box: BallotBox, commit: CommitInfo | None = None) -> str | None:
    return ballots_flaw(committee.chain, box, committee.height, commit or committee.commit_info())


def test_all_votes_and_any_quorum_count_and_fewer_do_not(committee: Committee) -> None:
    box = collect(committee.chain, committee.last_commit())
    assert len(box.extensions) == 7 and flaw(committee, box) is None
    for left_out in range(1, 7):
        fewer = dataclasses.replace(box, extensions=box.extensions[left_out:])
        told = flaw(committee, fewer)
        assert told is None if left_out <= 2 else told is not None and "a quorum is 5" in told


def test_forged_repeated_and_foreign_votes_do_not_count(committee: Committee) -> None:
    box = collect(committee.chain, committee.last_commit())
    first, second, *rest = box.extensions
    lies = {
        "comes twice": (first, first, *rest),
        "out of order": (second, first, *rest),
        "no member": (*box.extensions[:6], (7, b"", bytes(64))),
        "does not hold": ((0, second[1], second[2]), second, *rest),
        "signature over the extension of member 1": (first, (1, second[1] + b"!", second[2]), *rest),
        "of member 1 does not": (first, (1, b"", second[2]), *rest),
        "8,193 bytes": (first, (1, bytes(8193), second[2]), *rest),
    }
    for words, extensions in lies.items():
        assert words in (flaw(committee, BallotBox(box.round, extensions)) or "")


def test_votes_of_another_round_or_height_do_not_count(committee: Committee) -> None:
    box = collect(committee.chain, committee.last_commit())
    assert "round" in (flaw(committee, dataclasses.replace(box, round=1)) or "")
    later = committee.commit_info()
    later.round = 1
    assert "does not hold" in (flaw(committee, dataclasses.replace(box, round=1), later) or "")
    earlier = ballots_flaw(committee.chain, box, committee.height - 1, committee.commit_info())
    assert "does not hold" in (earlier or "")


def test_who_is_not_in_the_last_commit_has_no_vote(committee: Committee) -> None:
    box = collect(committee.chain, committee.last_commit())
    commit = committee.commit_info()
    commit.votes[3].block_id_flag = ABSENT
    assert "member 3 did not vote" in (flaw(committee, box, commit) or "")


def test_power_is_the_chains_own_whatever_the_block_says(committee: Committee) -> None:
    box = collect(committee.chain, committee.last_commit())
    commit = committee.commit_info()
    for vote in commit.votes:
        vote.validator.power = 1000
    few = dataclasses.replace(box, extensions=box.extensions[:4])
    assert "a quorum is 5" in (flaw(committee, few, commit) or "")


def test_a_proposer_leaves_out_what_is_too_long(tmp_path: Path) -> None:
    made = Committee(tmp_path)
    made.step()
    txs = made.propose(0, [made.submission(0)])
    made.decide(txs, extensions=lambda place, own: bytes(9000) if place == 2 else own)
    box = collect(made.chain, made.last_commit())
    assert [place for place, _, _ in box.extensions] == [0, 1, 3] and flaw(made, box) is None
    made.close()
