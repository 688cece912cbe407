"""One entry of the ledger: its fields, its hash, its line; and the head, which is kept elsewhere."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from phalanx.errors import DataError
from phalanx.files import read_structured
from phalanx.service.canonical import Encoded, canonical, digest
from phalanx.service.keys import SigningKey
from phalanx.service.statements import Statement

__all__ = [
    "ENTRY_LIMIT",
    "GENESIS",
    "KINDS",
    "Entry",
    "Head",
    "entry_flaw",
    "entry_hash",
    "entry_line",
    "seal",
]

KINDS = ("batch", "mode", "model", "operator", "evidence", "member")
"""What entries tell of: decisions; shadow or enforcement; the model; an operator's action; a lie; a member's key."""

GENESIS = "0" * 64
"""The hash before the first entry."""

ENTRY_LIMIT = 32 * 2**20
"""Bytes of the longest line."""

_HASH, _SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")
_HEAD_FORMAT = "phalanx-head-1"


@dataclass(frozen=True)
class Head:
    """Where a ledger ends: kept elsewhere, it shows later that nothing before it was changed or cut off.

    Attributes:
        height: of the last entry; 0 where there is none.
        hash: of that entry, 64 hexadecimal digits.
        signatures: of that entry, by member.
    """

    height: int = 0
    hash: str = GENESIS
    signatures: Mapping[str, str] = field(default_factory=dict)

    def statement(self, member: str) -> Statement:
        """What a member's signature says: two heads of one height with different hashes are evidence against it."""
        return Statement(member, self.height, "entry", {"hash": self.hash}, self.signatures[member])

    def to_json(self) -> dict[str, Any]:
        """The form to keep."""
        return {
            "format": _HEAD_FORMAT,
            "height": self.height,
            "hash": self.hash,
            "signatures": dict(self.signatures),
        }

    @classmethod
    def from_json(cls, form: Any) -> "Head":
        """From that form.

        Raises:
            DataError: it is another form.

        Example:
            >>> Head.from_json(Head().to_json()).height
            0
        """
        if not isinstance(form, dict) or form.get("format") != _HEAD_FORMAT:
            raise DataError(
                f'not a head: expected an object with "format": "{_HEAD_FORMAT}". See phalanx ledger head'
            )
        height, hashed, signatures = form.get("height"), form.get("hash"), form.get("signatures")
        if type(height) is int and height >= 0 and _is(hashed, _HASH) and _all_signed(signatures):
            return cls(height, hashed, signatures)
        raise DataError("not a head: expected height, hash (64 hexadecimal digits) and signatures by member")

    @classmethod
    def read(cls, source: str) -> "Head":
        """From a file, or from its text.

        Raises:
            DataError: it cannot be read, or is no head.
        """
        if not source.lstrip().startswith("{"):
            return cls.from_json(read_structured(Path(source), "head"))
        try:
            return cls.from_json(json.loads(source))
        except (ValueError, RecursionError):
            raise DataError("--head: neither a file nor a JSON text. See phalanx ledger head") from None


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        height: 1 for the first entry.
        previous: hash of the entry before, 64 hexadecimal digits; ``GENESIS`` for the first.
        kind: one of ``KINDS``.
        body: what it tells, of JSON's own types.
        hash: SHA-256 over the canonical encoding of the four fields above.
        signatures: of members, 128 hexadecimal digits each; what is signed is ``Head.statement``.
    """

    height: int
    previous: str
    kind: str
    body: Mapping[str, Any]
    hash: str
    signatures: Mapping[str, str]

    @property
    def head(self) -> Head:
        """The ledger's head while this entry is the last."""
        return Head(self.height, self.hash, self.signatures)

    @classmethod
    def parse(cls, line: bytes) -> "Entry":
        """The entry of a line; whether it is what was written is for ``entry_flaw`` to say.

        Raises:
            DataError: no entry.
        """
        try:
            form = json.loads(line.decode("ascii"))
        except (ValueError, RecursionError):
            raise DataError("not JSON in ASCII") from None
        names = ["body", "hash", "height", "kind", "previous", "signatures"]
        if not isinstance(form, dict) or sorted(form) != names:
            raise DataError(f"not an entry: expected an object with {', '.join(names)}")
        if type(form["height"]) is not int or form["height"] < 1:
            raise DataError("height is not a whole number from 1 on")
        if form["kind"] not in KINDS:
            raise DataError(f"kind is none of {', '.join(KINDS)}")
        if not (_is(form["hash"], _HASH) and _is(form["previous"], _HASH)):
            raise DataError("hash or previous is not 64 hexadecimal digits in lower case")
        if not isinstance(form["body"], dict) or not _all_signed(form["signatures"]):
            raise DataError(
                "body is no object, or signatures are not 128 hexadecimal digits in lower case by member"
            )
        return cls(**form)


def entry_hash(height: int, previous: str, kind: str, body: Mapping[str, Any]) -> str:
    """The hash of an entry that is yet to be signed and appended: 64 hexadecimal digits.

    Raises:
        DataError: the body has no form in JSON.
    """
    return _hash(height, previous, kind, _text(body))


def seal(
    height: int,
    previous: str,
    kind: str,
    body: Mapping[str, Any],
    *,
    signers: Mapping[str, SigningKey],
    signatures: Mapping[str, str],
) -> tuple[Entry, bytes]:
    """An entry, hashed and signed, and its line.

    Args:
        height: of the entry.
        previous: hash of the entry before.
        kind: one of ``KINDS``.
        body: what it tells, of JSON's own types.
        signers: keys by member.
        signatures: of further members, who have signed already.

    Raises:
        DataError: the body has no form in JSON, or is too large.

    Example:
        >>> entry, line = seal(1, GENESIS, "mode", {"mode": "shadow"}, signers={}, signatures={})
        >>> Entry.parse(line) == entry, entry_flaw(entry, line)
        (True, None)
    """
    text = _text(body)
    hashed = _hash(height, previous, kind, text)
    own = {
        member: Statement.signed(key, member, height, "entry", {"hash": hashed}).signature
        for member, key in signers.items()
    }
    entry = Entry(height, previous, kind, body, hashed, {**signatures, **own})
    line = _line(entry, text)
    if len(line) > ENTRY_LIMIT:
        raise DataError(
            f"an entry of {len(line):,} bytes; a line of the ledger has at most {ENTRY_LIMIT:,}. Use smaller batches"
        )
    return entry, line


def _text(body: Mapping[str, Any]) -> str:
    return body.text if isinstance(body, Encoded) else canonical(dict(body))


def entry_line(entry: Entry) -> bytes:
    """The line of an entry, its newline at the end."""
    return _line(entry, canonical(dict(entry.body)))


def entry_flaw(entry: Entry, line: bytes) -> str | None:
    """Why a line is not what was written when its entry was hashed; None where it is."""
    try:
        text = canonical(dict(entry.body))
        if _hash(entry.height, entry.previous, entry.kind, text) != entry.hash:
            return "its hash is not that of its content"
        canonically = _line(entry, text) == line
    except DataError:
        canonically = False
    return None if canonically else "the line is not canonical JSON"


def _hash(height: int, previous: str, kind: str, body: str) -> str:
    return digest("entry", f'{{"body":{body},"height":{height},"kind":"{kind}","previous":"{previous}"}}')


def _line(entry: Entry, body: str) -> bytes:
    return (
        f'{{"body":{body},"hash":"{entry.hash}","height":{entry.height},"kind":"{entry.kind}",'
        f'"previous":"{entry.previous}","signatures":{canonical(dict(entry.signatures))}}}\n'
    ).encode("ascii")


def _is(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _all_signed(signatures: object) -> TypeGuard[dict[str, str]]:
    return isinstance(signatures, dict) and all(_is(text, _SIGNATURE) for text in signatures.values())
