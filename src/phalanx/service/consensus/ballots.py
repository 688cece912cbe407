"""The signed votes that a proposer carries from one height into the next, and what every node checks of them.

The engine gives the proposer each node's vote extension with the engine's own signature over it. The set goes into the
block as its first transaction. A node accepts it where every signature holds, no signer comes twice, each is one whose
vote is in the block's own last commit, and they are a quorum: a proposer can leave out up to f of them, and forge or
repeat none. An empty extension is an abstention, under a signature too.
"""

import struct
from dataclasses import dataclass

import msgspec

from phalanx.errors import DataError
from phalanx.service.consensus.abci.abci_types_pb2 import CommitInfo, ExtendedCommitInfo
from phalanx.service.consensus.abci.types_validator_pb2 import BLOCK_ID_FLAG_COMMIT
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.extension import EXTENSION_BYTES
from phalanx.service.consensus.framing import frame, uvarint
from phalanx.service.keys import verify

__all__ = ["BallotBox", "ballots_flaw", "collect", "is_box", "sign_bytes"]

_TAG = b"V"
_SIGNATURE = 64


@dataclass(frozen=True)
class BallotBox:
    """Extensions of one height.

    Attributes:
        round: in which that height was decided.
        extensions: extension and the engine's signature over it, by the member's place, places rising.
    """

    round: int
    extensions: tuple[tuple[int, bytes, bytes], ...]

    def encode(self) -> bytes:
        """The transaction that carries them.

        Example:
            >>> box = BallotBox(0, ((1, b"votes", bytes(64)),))
            >>> BallotBox.decode(box.encode()) == box
            True
        """
        return _TAG + msgspec.msgpack.encode((self.round, self.extensions))

    @classmethod
    def decode(cls, raw: bytes) -> "BallotBox":
        """From that transaction.

        Raises:
            DataError: it is none, or not in its one form.
        """
        if not is_box(raw):
            raise DataError("not a set of votes")
        try:
            form = msgspec.msgpack.decode(raw[1:], type=tuple[int, tuple[tuple[int, bytes, bytes], ...]])
        except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
            raise DataError(f"not a set of votes: {problem}") from None
        box = cls(*form)
        if box.encode() != raw:
            raise DataError("a set of votes that is not in its one form")
        return box


def is_box(raw: bytes) -> bool:
    """Whether a transaction says that it carries votes."""
    return raw.startswith(_TAG)


def collect(chain: Chain, last: ExtendedCommitInfo) -> BallotBox:
    """What a proposer carries on: every extension that it has, except ones that are too long."""
    found = {}
    for vote in last.votes:
        place = chain.places.get(vote.validator.address)
        fits = len(vote.vote_extension) <= EXTENSION_BYTES and len(vote.extension_signature) == _SIGNATURE
        if place is not None and vote.block_id_flag == BLOCK_ID_FLAG_COMMIT and fits:
            found[place] = (place, vote.vote_extension, vote.extension_signature)
    return BallotBox(last.round, tuple(found[place] for place in sorted(found)))


def ballots_flaw(chain: Chain, box: BallotBox, height: int, commit: CommitInfo) -> str | None:
    """Why a set of votes may not be counted; None where it may.

    Args:
        chain: whose members vote; their power is known from it, never from the block.
        box: the set.
        height: of the block that the votes are on.
        commit: the last commit of the block that carries them.
    """
    places = [place for place, _, _ in box.extensions]
    if any(a >= b for a, b in zip(places, places[1:], strict=False)):
        return "a signer comes twice, or they are out of order"
    if not all(0 <= place < chain.n for place in places):
        return "a signer is no member"
    if len(places) < chain.quorum:
        return f"{len(places)} votes; a quorum is {chain.quorum}"
    if box.round != commit.round:
        return f"votes of round {box.round}, while the last height was decided in round {commit.round}"
    committed = {
        chain.places[vote.validator.address]
        for vote in commit.votes
        if vote.block_id_flag == BLOCK_ID_FLAG_COMMIT and vote.validator.address in chain.places
    }
    for place, extension, signature in box.extensions:
        if place not in committed:
            return f"member {place} did not vote for the last block"
        if len(extension) > EXTENSION_BYTES:
            return f"the extension of member {place} has {len(extension):,} bytes"
        signed = sign_bytes(chain.name, height, box.round, extension)
        if not verify(chain.members[place].validator, signed, signature):
            return f"the signature over the extension of member {place} does not hold"
    return None


def sign_bytes(chain: str, height: int, round_: int, extension: bytes) -> bytes:
    """What an engine signs of an extension.

    Source: CometBFT v0.38, ``CanonicalVoteExtension``: extension = 1, height = 2 and round = 3 (sfixed64),
    chain_id = 4, behind its length; proto3 leaves out what is zero or empty.
    """
    out = b"\x0a" + frame(extension) if extension else b""
    if height:
        out += b"\x11" + struct.pack("<q", height)
    if round_:
        out += b"\x19" + struct.pack("<q", round_)
    if chain:
        out += b"\x22" + frame(chain.encode())
    return uvarint(len(out)) + out
