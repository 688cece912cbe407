"""What a member says under its signature, and the evidence that it has said two things for one height."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.keys import SigningKey, verify
from phalanx.service.members import Members

__all__ = ["Statement", "equivocation", "evidence_flaw"]


@dataclass(frozen=True)
class Statement:
    """What a member said, signed.

    Attributes:
        member: who.
        height: for which height of the ledger, or of the chain.
        about: what it speaks of, such as ``entry``, ``vote``, ``reply``; a member says one thing of it a height.
        content: what it says; JSON's own types.
        signature: 128 hexadecimal digits.
        chain: which chain it is for, where there are several.

    Example:
        >>> import tempfile, pathlib
        >>> key = SigningKey.create(pathlib.Path(tempfile.mkdtemp()) / "a.pem")
        >>> said = Statement.signed(key, "a", 7, "vote", {"votes": [1, 0]})
        >>> said.holds(key.public), Statement.from_json(said.to_json()) == said
        (True, True)
    """

    member: str
    height: int
    about: str
    content: Mapping[str, Any]
    signature: str
    chain: str = ""

    @classmethod
    def signed(
        cls,
        key: SigningKey,
        member: str,
        height: int,
        about: str,
        content: Mapping[str, Any],
        chain: str = "",
    ) -> "Statement":
        """What a member says, with its signature.

        Raises:
            DataError: the content has no form in JSON.
        """
        unsigned = cls(member, height, about, content, "", chain)
        return cls(member, height, about, content, key.sign(unsigned.message).hex(), chain)

    @property
    def message(self) -> bytes:
        """The bytes that are signed: who, when, what about and what, so that the signature serves for nothing else."""
        told = {
            "about": self.about,
            "chain": self.chain,
            "content": dict(self.content),
            "height": self.height,
            "member": self.member,
        }
        return f"phalanx statement 1\n{canonical(told)}".encode("ascii")

    def holds(self, public: str) -> bool:
        """Whether the signature is that of a public key."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        # digits in another case, or spaces between them, would be a second form of the same signature
        return signature.hex() == self.signature and verify(public, self.message, signature)

    def to_json(self) -> dict[str, Any]:
        """The form that goes into a ledger."""
        return {
            "member": self.member,
            "height": self.height,
            "about": self.about,
            "content": dict(self.content),
            "signature": self.signature,
            "chain": self.chain,
        }

    @classmethod
    def from_json(cls, form: Any) -> "Statement":
        """From that form.

        Raises:
            DataError: it is another form.
        """
        types = {"member": str, "height": int, "about": str, "content": dict, "signature": str, "chain": str}
        if not isinstance(form, dict) or {name: type(value) for name, value in form.items()} != types:
            raise DataError(f"not a statement: expected an object with {', '.join(types)}")
        return cls(**form)


def equivocation(one: Statement, other: Statement, members: Members) -> dict[str, Any]:
    """The body of an entry of evidence: two signed statements of a member that cannot both be meant.

    Args:
        one: a statement.
        other: another one of the same member, about the same, for the same height; the order does not matter.
        members: whose keys they must be signed with.

    Raises:
        DataError: they do not conflict, or one of them is not signed by the member.
    """
    one, other = sorted((one, other), key=lambda said: (said.message, said.signature))
    body = {
        "member": one.member,
        "height": one.height,
        "about": one.about,
        "statements": [one.to_json(), other.to_json()],
    }
    flaw = evidence_flaw(body, members)
    if flaw:
        raise DataError(f"no evidence: {flaw}. Keep the statements as they are, and accuse nobody")
    return body


def evidence_flaw(body: Mapping[str, Any], members: Members) -> str | None:
    """Why the body of an entry of evidence proves nothing; None where it proves what it says."""
    statements = body.get("statements")
    if not isinstance(statements, list) or len(statements) != 2:
        return "evidence holds two statements"
    try:
        one, other = (Statement.from_json(form) for form in statements)
    except DataError as problem:
        return str(problem)
    for what in ("member", "height", "about"):
        if not body.get(what) == getattr(one, what) == getattr(other, what):
            return f"the statements and the evidence do not name one {what}"
    if one.chain != other.chain:
        return "the statements are for different chains"
    if one.message == other.message:
        return "both statements say the same"
    public = members.public(one.member, one.height)
    if public is None:
        return f"{ascii(one.member)[:80]} was no member at height {one.height}"
    if not (one.holds(public) and other.holds(public)):
        return f"a statement is not signed by member {one.member!r}"
    return None
