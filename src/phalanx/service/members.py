"""Whose signatures count at which heights of a ledger: the file of public keys."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, UsageError
from phalanx.files import read_structured, write_json

__all__ = ["MEMBERS_FORMAT", "MemberKey", "Members"]

MEMBERS_FORMAT = "phalanx-members-1"
_PUBLIC = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class MemberKey:
    """A public key of a member.

    Attributes:
        member: its name: at most 64 letters, digits, dots, dashes and underscores.
        public: 64 hexadecimal digits.
        first: the first height that it may sign, at least 1.
        last: the last one; None where there is no end.
    """

    member: str
    public: str
    first: int = 1
    last: int | None = None

    def signs(self, height: int) -> bool:
        """Whether its signature counts at a height."""
        return self.first <= height and (self.last is None or height <= self.last)


@dataclass(frozen=True)
class Members:
    """The keys of all members, replaced ones too.

    The file is JSON: ``{"format": "phalanx-members-1", "members": {"a": [{"public": "<64 hexadecimal digits>", "from":
    1, "until": null}]}}``, heights inclusive at both ends.

    Raises:
        DataError: a name, a key or a range that cannot be; a member with two keys at a height; a key of two members.

    Example:
        >>> members = Members.of({"a": "0" * 64}).replaced("a", "1" * 64, 10)
        >>> members.public("a", 9) == "0" * 64, members.public("a", 10) == "1" * 64, members.public("b", 1)
        (True, True, None)
    """

    keys: tuple[MemberKey, ...]

    def __post_init__(self) -> None:
        for place, key in enumerate(self.keys):
            _check(key)
            for other in self.keys[:place]:
                if other.member == key.member and _overlap(other, key):
                    raise DataError(
                        f"member {key.member!r} has two keys at height {max(other.first, key.first)}; end the one "
                        "(until) before the other begins (from)"
                    )
                if other.public == key.public:
                    raise DataError(
                        f"members {other.member!r} and {key.member!r} have one key, or a key is listed twice; "
                        "each member, and each replacement, needs a key of its own"
                    )

    @classmethod
    def of(cls, public: Mapping[str, str]) -> "Members":
        """Members whose keys, by name, sign all heights."""
        return cls(tuple(MemberKey(member, key) for member, key in public.items()))

    @classmethod
    def load(cls, path: Path) -> "Members":
        """Reads a file of public keys.

        Raises:
            DataError: it cannot be read, or is none.
        """
        content = read_structured(path, "file of public keys")
        try:
            return cls.from_json(content)
        except DataError as problem:
            raise DataError(f"{path}: {problem}") from None

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def from_json(cls, content: Any) -> "Members":
        """From the file's form.

        Raises:
            DataError: it is another form.
        """
        if not isinstance(content, dict) or content.get("format") != MEMBERS_FORMAT:
            raise DataError(
                f'no file of public keys: expected {{"format": "{MEMBERS_FORMAT}", "members": ...}}'
            )
        listed = content.get("members")
        if set(content) != {"format", "members"} or not isinstance(listed, dict):
            raise DataError("expected format and members, nothing else; members is an object by name")
        return cls(tuple(key for member, keys in listed.items() for key in _keys_of(member, keys)))

    def to_json(self) -> dict[str, Any]:
        """The file's form."""
        members: dict[str, list[dict[str, Any]]] = {}
        for key in self.keys:
            form = {"public": key.public, "from": key.first, "until": key.last}
            members.setdefault(key.member, []).append(form)
        return {"format": MEMBERS_FORMAT, "members": members}

    def public(self, member: str, height: int) -> str | None:
        """The key whose signature counts for a member at a height; None where there is none."""
        found = (key.public for key in self.keys if key.member == member and key.signs(height))
        return next(found, None)

    def at(self, height: int) -> tuple[str, ...]:
        """The members at a height."""
        return tuple(key.member for key in self.keys if key.signs(height))

    def knows(self, member: str) -> bool:
        """Whether there is such a member at any height."""
        return any(key.member == member for key in self.keys)

    def needed(self, height: int) -> int:
        """The signatures that an entry needs: f + 1, one at least, of n >= 3f + 1 members, so that one is honest.

        Example:
            >>> Members.of({str(i): f"{i:064x}" for i in range(7)}).needed(1)
            3
        """
        from phalanx.committee.rule import faults_tolerated

        return faults_tolerated(max(1, len(self.at(height)))) + 1

    def replaced(self, member: str, public: str, height: int) -> "Members":
        """With another key of a member from a height on; the one before, if any, ends there.

        Raises:
            UsageError: the member has a key that begins there or later.
        """
        keys = []
        for key in self.keys:
            if key.member == member and (key.last is None or key.last >= height):
                if key.first >= height:
                    raise UsageError(
                        f"member {member!r} has a key from height {key.first} on already; replace it from a later "
                        f"height than {height}"
                    )
                key = dataclasses.replace(key, last=height - 1)
            keys.append(key)
        return Members((*keys, MemberKey(member, public, height)))


def _check(key: MemberKey) -> None:
    if not _NAME.fullmatch(key.member):
        raise DataError(
            f"member {ascii(key.member)[:80]}: expected at most 64 letters, digits, dots, dashes and underscores"
        )
    if not _PUBLIC.fullmatch(key.public):
        raise DataError(f"member {key.member!r}: the public key is not 64 hexadecimal digits in lower case")
    if key.first < 1 or (key.last is not None and key.last < key.first):
        raise DataError(
            f"member {key.member!r}: from {key.first} until {key.last}; expected 1 <= from <= until"
        )


def _overlap(one: MemberKey, other: MemberKey) -> bool:
    return one.signs(other.first) or other.signs(one.first)


def _keys_of(member: str, keys: Any) -> Iterator[MemberKey]:
    for key in keys if isinstance(keys, list) and keys else [None]:
        if not isinstance(key, dict) or not {"public"} <= set(key) <= {"public", "from", "until"}:
            raise DataError(
                f"member {ascii(member)[:80]}: expected a list of objects with public, from and until"
            )
        public, first, last = key["public"], key.get("from", 1), key.get("until")
        if not isinstance(public, str) or type(first) is not int or not (last is None or type(last) is int):
            raise DataError(
                f"member {ascii(member)[:80]}: public is text, from and until are heights (until: null)"
            )
        yield MemberKey(member, public, first, last)
