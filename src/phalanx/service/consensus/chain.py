"""What all nodes of a network agree on before the first block: its members, its gateways, its limits."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phalanx.committee.rule import faults_tolerated
from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.identity import address_of
from phalanx.service.members import MemberKey, Members

__all__ = ["MODES", "Chain", "ChainMember", "Epoch", "quorum_of"]

MODES = ("shadow", "enforce")
"""What the ledger says of its decisions: told only, or meant to take effect."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PUBLIC = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ChainMember:
    """A member of the committee, and the engine that speaks for it.

    Attributes:
        name: of the member.
        public: key with which it signs votes, replies and entries, 64 hexadecimal digits.
        validator: key with which its engine votes on blocks, 64 hexadecimal digits.
    """

    name: str
    public: str
    validator: str

    @property
    def address(self) -> bytes:
        """The engine's address."""
        return address_of(bytes.fromhex(self.validator))


@dataclass(frozen=True)
class Epoch:
    """A time of a network that has ended: after it, a member was replaced, and its engines began a chain anew.

    Attributes:
        chain: name of its chain.
        height: of the ledger where it ended, at least 1.
        hash: of the entry there.
        member: who was replaced.
        public: the key that it had.
    """

    chain: str
    height: int
    hash: str
    member: str
    public: str


@dataclass(frozen=True)
class Chain:
    """What all nodes agree on; it is in the genesis file, and each node refuses to run on another's.

    Attributes:
        name: of the chain: signatures for one serve for no other.
        members: in the order of their places in a decision's votes; each has one vote.
        gateways: public keys of those who may submit events, by name.
        mode: one of ``MODES``.
        batch_events: the most events that one height orders, in [1, 8192].
        window: entries of the ledger within which a submission must be ordered, and is known when it comes again.
        epochs: those before, oldest first; the ledger goes on over all of them.

    Raises:
        UsageError: a value out of its range, or a key or a name that is there twice.
    """

    name: str
    members: tuple[ChainMember, ...]
    gateways: Mapping[str, str]
    mode: str = "shadow"
    batch_events: int = 1024
    window: int = 512
    epochs: tuple[Epoch, ...] = ()
    places: Mapping[bytes, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {member.address: i for i, member in enumerate(self.members)})
        named = [self.name, *(member.name for member in self.members), *self.gateways]
        keys = [member.public for member in self.members]
        keys += [member.validator for member in self.members] + list(self.gateways.values())
        keys += [epoch.public for epoch in self.epochs]
        if not all(_NAME.fullmatch(name) for name in named) or len(set(named)) < len(named):
            raise UsageError(
                f"names {named}: expected different ones of at most 40 letters, digits, dots, dashes"
            )
        if not all(_PUBLIC.fullmatch(key) for key in keys) or len(set(keys)) < len(keys):
            raise UsageError("public keys: expected 64 hexadecimal digits each, and no key twice")
        if not self.members or not self.gateways:
            raise UsageError("a network needs at least one member and one gateway")
        if self.mode not in MODES:
            raise UsageError(f"mode {self.mode!r}; expected one of {', '.join(MODES)}")
        if not (1 <= self.batch_events <= 8192 and 1 <= self.window <= 100_000):
            raise UsageError(
                f"batch_events={self.batch_events}, window={self.window}; expected 1 to 8192 and 1 to 100,000"
            )
        heights = [0, *(epoch.height for epoch in self.epochs)]
        names = {member.name for member in self.members}
        chains = [self.name, *(epoch.chain for epoch in self.epochs)]
        if (
            any(a >= b for a, b in zip(heights, heights[1:], strict=False))
            or len(set(chains)) < len(chains)
            or not names.issuperset(epoch.member for epoch in self.epochs)
        ):
            raise UsageError(
                "epochs: expected rising heights, a chain's name once, and members of the network"
            )

    @property
    def n(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def f(self) -> int:
        """Faults tolerated: the most that n >= 3f + 1 allows."""
        return faults_tolerated(self.n)

    @property
    def quorum(self) -> int:
        """Votes that make a decision, and more than two thirds of all."""
        return quorum_of(self.n)

    @property
    def keys(self) -> Members:
        """The members' keys as the ledger checks them, those that were replaced too, by the ledger's heights."""
        keys = []
        for member in self.members:
            first = 1
            for epoch in self.epochs:
                if epoch.member == member.name:
                    keys.append(MemberKey(member.name, epoch.public, first, epoch.height))
                    first = epoch.height + 1
            keys.append(MemberKey(member.name, member.public, first))
        return Members(tuple(keys))

    @property
    def current(self) -> Members:
        """The members' keys now, by the heights of this chain's blocks."""
        return Members.of({member.name: member.public for member in self.members})

    @property
    def begins(self) -> int:
        """Height of the ledger's entry with which this chain begins: it names the replaced member; 0 for the first."""
        return self.epochs[-1].height + 1 if self.epochs else 0

    def place_of(self, name: str) -> int:
        """The place of a member.

        Raises:
            UsageError: there is no such member.
        """
        for place, member in enumerate(self.members):
            if member.name == name:
                return place
        raise UsageError(f"{name!r} is no member; expected one of {', '.join(m.name for m in self.members)}")

    def to_json(self) -> dict[str, Any]:
        """The form that is in the genesis file."""
        return {
            "name": self.name,
            "members": [dataclasses.asdict(member) for member in self.members],
            "gateways": dict(self.gateways),
            "mode": self.mode,
            "batch_events": self.batch_events,
            "window": self.window,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
        }

    @classmethod
    def from_json(cls, form: Any) -> "Chain":
        """From that form.

        Raises:
            DataError: it is another form.
        """
        try:
            members = tuple(ChainMember(**member) for member in form["members"])
            epochs = tuple(Epoch(**epoch) for epoch in form.get("epochs", ()))
            return cls(**{**form, "members": members, "epochs": epochs})
        except (KeyError, TypeError, AttributeError) as problem:
            raise DataError(f"not the settings of a network ({problem}). Make the network anew") from None


def quorum_of(n: int) -> int:
    """Votes that make a decision of n members, and more than two thirds of all.

    Example:
        >>> [quorum_of(n) for n in (1, 3, 4, 6, 7)]
        [1, 3, 3, 5, 5]
    """
    return max(2 * faults_tolerated(n) + 1, 2 * n // 3 + 1)
