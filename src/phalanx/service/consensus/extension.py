"""A member's votes on a batch, as they ride on its engine's vote on the block: packed, signed, bounded.

An extension is the short form of a ``Statement`` about its batch: height, chain and batch are those of the block
that it belongs to, so that a signature for another block does not hold, and two that differ are evidence.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.errors import DataError
from phalanx.service.keys import SigningKey
from phalanx.service.statements import Statement
from phalanx.verdicts import N_VERDICTS

__all__ = ["EXTENSION_BYTES", "Ballot", "Vote", "pack", "read_vote", "statement_of", "unpack"]

EXTENSION_BYTES = 8192
"""Bytes of the largest extension; the engine's own limit is 1 MiB, beyond which it stops."""

_VERSION = 1
_HEAD = struct.Struct(">BBH")  # version, bytes of the model's name, votes
_SIGNATURE = 64
_PER_BYTE = 4
_MODEL = 64


@dataclass(frozen=True)
class Ballot:
    """What members vote on.

    Attributes:
        chain: name of the chain.
        height: of the block that ordered the batch.
        batch: digest of its events.
        events: how many they are.
    """

    chain: str
    height: int
    batch: str
    events: int


@dataclass(frozen=True)
class Vote:
    """What a member voted.

    Attributes:
        model: hash of the parameters that it voted with.
        votes: one an event, each a verdict 0..3.
    """

    model: str
    votes: tuple[int, ...]

    def statement(self, ballot: Ballot, member: str, signature: str) -> Statement:
        """What the member said, in full."""
        return Statement(member, ballot.height, _about(ballot), _content(self), signature, ballot.chain)


def pack(key: SigningKey, member: str, ballot: Ballot, vote: Vote) -> bytes:
    """The extension of a vote.

    Raises:
        DataError: a vote that is not one of the four verdicts, not one an event, or a model's name that is too long.

    Example:
        >>> import tempfile, pathlib
        >>> key = SigningKey.create(pathlib.Path(tempfile.mkdtemp()) / "a.pem")
        >>> ballot, vote = Ballot("demo", 7, "0" * 64, 5), Vote("m", (0, 1, 2, 3, 1))
        >>> raw = pack(key, "a", ballot, vote)
        >>> len(raw), read_vote(raw, key.public, "a", ballot) == vote
        (71, True)
    """
    numbers = vote.votes
    if len(numbers) != ballot.events or not all(type(v) is int and 0 <= v < N_VERDICTS for v in numbers):
        raise DataError(f"expected {ballot.events} votes, each 0 to {N_VERDICTS - 1}, got {len(numbers)}")
    model = vote.model.encode()
    if not 1 <= len(model) <= _MODEL or not (vote.model.isascii() and vote.model.isprintable()):
        raise DataError(
            f"the model's hash {vote.model[:80]!r}: expected 1 to {_MODEL} printable ASCII characters"
        )
    statement = Statement.signed(key, member, ballot.height, _about(ballot), _content(vote), ballot.chain)
    raw = _HEAD.pack(_VERSION, len(model), len(numbers)) + model + _packed(numbers)
    raw += bytes.fromhex(statement.signature)
    if len(raw) > EXTENSION_BYTES:
        raise DataError(
            f"an extension of {len(raw):,} bytes; at most {EXTENSION_BYTES:,}. Use smaller batches"
        )
    return raw


def unpack(raw: bytes) -> tuple[Vote, str]:
    """What an extension says, and its signature, unchecked.

    Raises:
        DataError: it is none.
    """
    if not _HEAD.size + _SIGNATURE <= len(raw) <= EXTENSION_BYTES:
        raise DataError(f"an extension of {len(raw):,} bytes")
    version, named, count = _HEAD.unpack_from(raw)
    size = -(-count // _PER_BYTE)
    if version != _VERSION or len(raw) != _HEAD.size + named + size + _SIGNATURE:
        raise DataError("not an extension of this version")
    model = raw[_HEAD.size : _HEAD.size + named]
    packed = raw[_HEAD.size + named : _HEAD.size + named + size]
    numbers = tuple(packed[i // _PER_BYTE] >> 2 * (i % _PER_BYTE) & 3 for i in range(count))
    if _packed(numbers) != packed or not 1 <= named <= _MODEL or not model.isascii():
        raise DataError("not an extension in its one form")
    name = model.decode("ascii")
    if not name.isprintable():
        raise DataError("not an extension: the model's hash is not printable")
    return Vote(name, numbers), raw[-_SIGNATURE:].hex()


def read_vote(raw: bytes, public: str, member: str, ballot: Ballot) -> Vote | None:
    """A member's vote on a ballot; None (an abstention) where the extension is not the member's vote on it.

    Args:
        raw: the extension.
        public: the member's key.
        member: its name.
        ballot: what it must be on.
    """
    try:
        vote, signature = unpack(raw)
    except DataError:
        return None
    if len(vote.votes) != ballot.events or not vote.statement(ballot, member, signature).holds(public):
        return None
    return vote


def statement_of(raw: bytes, public: str, member: str, ballot: Ballot) -> Statement | None:
    """What a member said of a ballot, in full and signed; None where the extension is not its vote (``read_vote``)."""
    if read_vote(raw, public, member, ballot) is None:
        return None
    vote, signature = unpack(raw)
    return vote.statement(ballot, member, signature)


def _about(ballot: Ballot) -> str:
    # rounds of one height may propose different batches: a member votes once on each
    return f"vote on {ballot.batch}"


def _content(vote: Vote) -> Mapping[str, Any]:
    return {"model": vote.model, "votes": "".join(map(str, vote.votes))}


def _packed(numbers: Sequence[int]) -> bytes:
    """Two bits a vote, the first in the lowest bits."""
    out = bytearray(-(-len(numbers) // _PER_BYTE))
    for i, number in enumerate(numbers):
        out[i // _PER_BYTE] |= number << 2 * (i % _PER_BYTE)
    return bytes(out)
