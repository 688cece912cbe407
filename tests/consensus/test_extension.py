"""Votes as they ride on the engine's vote: packed and back, bounded, anything else an abstention."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError
from phalanx.service.consensus.extension import EXTENSION_BYTES, Ballot, Vote, pack, read_vote, unpack
from phalanx.service.keys import SigningKey
from phalanx.service.members import Members
from phalanx.service.statements import equivocation

votes = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(tuple)
models = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("keys") / "member.pem")


def ballot(count: int, height: int = 7, batch: str = "0" * 64, chain: str = "c") -> Ballot:
    return Ballot(chain, height, batch, count)


@given(votes, models)
def test_votes_come_back(key: SigningKey, cast: tuple[int, ...], model: str) -> None:
    raw = pack(key, "a", ballot(len(cast)), Vote(model, cast))
    assert read_vote(raw, key.public, "a", ballot(len(cast))) == Vote(model, cast)
    assert len(raw) == 4 + len(model) + (len(cast) + 3) // 4 + 64


@given(votes, st.data())
def test_no_byte_can_be_changed(key: SigningKey, cast: tuple[int, ...], data: st.DataObject) -> None:
    raw = bytearray(pack(key, "a", ballot(len(cast)), Vote("m", cast)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    assert read_vote(bytes(raw), key.public, "a", ballot(len(cast))) is None


@pytest.mark.parametrize(
    "other",
    [ballot(5, height=8), ballot(5, batch="1" * 64), ballot(5, chain="d"), ballot(4), ballot(6)],
    ids=["height", "batch", "chain", "fewer", "more"],
)
def test_votes_on_one_ballot_are_none_on_another(key: SigningKey, other: Ballot) -> None:
    raw = pack(key, "a", ballot(5), Vote("m", (0, 1, 2, 3, 0)))
    assert read_vote(raw, key.public, "a", other) is None
    assert read_vote(raw, key.public, "b", ballot(5)) is None
    assert read_vote(raw, "00" * 32, "a", ballot(5)) is None


def test_a_batch_of_8192_events_fits_and_what_does_not_is_refused(key: SigningKey) -> None:
    cast = tuple(i % 4 for i in range(8192))
    assert len(pack(key, "a", ballot(8192), Vote("m" * 64, cast))) <= EXTENSION_BYTES
    with pytest.raises(DataError, match="smaller batches"):
        pack(key, "a", ballot(40_000), Vote("m", (0,) * 40_000))
    with pytest.raises(DataError, match="an extension of"):
        unpack(bytes(EXTENSION_BYTES + 1))


@pytest.mark.parametrize(
    "vote",
    [
        Vote("m", (0, 4)),
        Vote("m", (0, -1)),
        Vote("m", (0,)),
        Vote("", (0, 1)),
        Vote("m" * 65, (0, 1)),
        Vote("\n", (0, 1)),
        Vote("\u00e9", (0, 1)),
    ],
)
def test_what_is_no_vote_is_not_packed(key: SigningKey, vote: Vote) -> None:
    with pytest.raises(DataError, match="expected"):
        pack(key, "a", ballot(2), vote)


def test_fuzzed_extensions_are_abstentions(key: SigningKey) -> None:
    rng = random.Random(1)
    good = pack(key, "a", ballot(9), Vote("m", (1,) * 9))
    for _ in range(5_000):
        raw = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(120)))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw) + 1)
            raw[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        if bytes(raw) != good:
            with contextlib.suppress(DataError):
                unpack(bytes(raw))
            assert read_vote(bytes(raw), key.public, "a", ballot(9)) is None
    assert read_vote(b"", key.public, "a", ballot(9)) is None


def test_two_votes_on_one_ballot_are_evidence(key: SigningKey) -> None:
    said = []
    for cast in ((0, 0), (3, 3)):
        vote, signature = unpack(pack(key, "a", ballot(2), Vote("m", cast)))
        said.append(vote.statement(ballot(2), "a", signature))
    assert equivocation(said[0], said[1], Members.of({"a": key.public}))["member"] == "a"
    elsewhere, signature = unpack(pack(key, "a", ballot(2, batch="1" * 64), Vote("m", (1, 1))))
    with pytest.raises(DataError, match="no evidence"):  # another round may propose another batch
        equivocation(
            said[0],
            elsewhere.statement(ballot(2, batch="1" * 64), "a", signature),
            Members.of({"a": key.public}),
        )
