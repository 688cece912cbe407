"""The entry of the ledger with which one member is replaced: what it says, who signed it, who believes it.

A network goes from one epoch to the next through one entry of kind ``member``: it follows the last entry that the old
members decided, names the new key and holds all that the new chain starts from. It is in force where a quorum of the
members before, the replaced one not among them, signed it. A member signs once, and takes no part in the old chain
after it; so a quorum that signed can decide nothing else there.
"""

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, UsageError
from phalanx.files import write_text
from phalanx.service.consensus.chain import Chain, ChainMember, Epoch, quorum_of
from phalanx.service.consensus.hosts import Hosts
from phalanx.service.ledger import MEMBERS_FILE
from phalanx.service.ledger_entry import Entry, Head, entry_flaw, entry_line, seal
from phalanx.service.ledger_files import ending, read_entries
from phalanx.service.members import Members

__all__ = ["Replacement", "members_after", "signatures_flaw"]


@dataclass(frozen=True)
class Replacement:
    """The entry, read.

    Attributes:
        entry: it.
        chain: that begins with it.
        peers: ids of the engines, by member.
        hosts: of the nodes; None where all are on one machine.
        time: when the new chain begins, RFC 3339.
    """

    entry: Entry
    chain: Chain
    peers: Mapping[str, str]
    hosts: Hosts | None
    time: str

    @property
    def member(self) -> str:
        """Who is replaced."""
        return self.chain.epochs[-1].member

    @classmethod
    def propose(
        cls,
        before: Chain,
        head: Head,
        member: ChainMember,
        *,
        peers: Mapping[str, str],
        hosts: Hosts | None,
        time: str,
        why: str,
    ) -> "Replacement":
        """One that nobody has signed yet.

        Args:
            before: the chain that ends.
            head: of the ledger where it ends.
            member: the new keys, under the name of the member that is replaced.
            peers, hosts, time: see the attributes.
            why: said in the ledger.

        Raises:
            UsageError: there is no such member; or the network tolerates no faulty one, so that none can be replaced.
        """
        if before.f < 1:
            raise UsageError(
                f"a network of {before.n} members tolerates no faulty one, and none can be replaced by the others. "
                "Make a network of at least 4"
            )
        if head.height < 1:
            raise UsageError("nothing was decided yet. Make the network anew")
        old = before.members[before.place_of(member.name)]
        chain = dataclasses.replace(
            before,
            name=f"phalanx-{secrets.token_hex(6)}",
            members=tuple(member if m is old else m for m in before.members),
            epochs=(*before.epochs, Epoch(before.name, head.height, head.hash, old.name, old.public)),
        )
        body = {
            "member": member.name,
            "public": member.public,
            "from": chain.begins,
            "why": why,
            "chain": chain.to_json(),
            "peers": dict(peers),
            "hosts": hosts and hosts.to_json(),
            "time": time,
        }
        entry, _ = seal(chain.begins, head.hash, "member", body, signers={}, signatures={})
        return cls(entry, chain, peers, hosts, time)

    @classmethod
    def load(cls, path: Path) -> "Replacement":
        """Reads one.

        Raises:
            DataError: it is none.
        """
        try:
            line = path.read_bytes()
        except OSError as problem:
            raise DataError(
                f"{path}: cannot read the replacement ({problem.strerror}). Check the path"
            ) from None
        try:
            entry = Entry.parse(line)
            flaw = entry_flaw(entry, line)
            if flaw:
                raise DataError(flaw)
            return cls.of(entry)
        except DataError as problem:
            raise DataError(f"{path}: {problem}. Propose the replacement anew") from None

    @classmethod
    def of(cls, entry: Entry) -> "Replacement":
        """From the entry.

        Raises:
            DataError: it replaces no member of a network.
        """
        body: Mapping[str, Any] = entry.body
        try:
            chain = Chain.from_json(body["chain"])
            hosts = Hosts.from_json(body["hosts"]) if body["hosts"] else None
            epoch, peers = chain.epochs[-1], dict(body["peers"])
            public = chain.members[chain.place_of(epoch.member)].public
            told = (entry.kind, entry.height, entry.previous, body["member"], body["public"], body["from"])
            names = {member.name for member in chain.members}
            if told != ("member", chain.begins, epoch.hash, epoch.member, public, chain.begins):
                raise DataError("its parts do not fit together")
            if set(peers) != names or (hosts is not None and set(hosts.nodes) != names):
                raise DataError("its nodes are not those of its members")
            return cls(entry, chain, peers, hosts, str(body["time"]))
        except (KeyError, TypeError, IndexError, ValueError, UsageError) as problem:
            raise DataError(f"not an entry that replaces a member of a network ({problem})") from None

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_text(path, entry_line(self.entry).decode())

    def signed(self, signatures: Mapping[str, str]) -> "Replacement":
        """With further signatures, by member."""
        entry = dataclasses.replace(self.entry, signatures={**self.entry.signatures, **signatures})
        return dataclasses.replace(self, entry=entry)

    def flaw_after(self, before: Chain) -> str | None:
        """Why it does not lead on from a chain; None where it does. Signatures are not looked at."""
        epoch = self.chain.epochs[-1]
        old = next((member for member in before.members if member.name == epoch.member), None)
        if old is None or (epoch.chain, epoch.public) != (before.name, old.public):
            return f"it does not follow the chain {before.name!r}"
        new = self.chain.members[before.place_of(epoch.member)]
        wanted = dataclasses.replace(
            before,
            name=self.chain.name,
            members=tuple(new if m is old else m for m in before.members),
            epochs=(*before.epochs, epoch),
        )
        if new.name != old.name or new.validator == old.validator or self.chain != wanted:
            return "it changes more than the keys of the member that it names"
        return None


def signatures_flaw(entry: Entry, members: Members) -> str | None:
    """Why an entry that replaces a member is not in force; None where a quorum of those before signed it.

    Args:
        entry: it.
        members: whose keys are known to be those before it.
    """
    names = members.at(entry.height - 1)
    held = 0
    for name in names:
        public = members.public(name, entry.height - 1)
        if name == entry.body.get("member") or name not in entry.signatures or public is None:
            continue
        if not entry.head.statement(name).holds(public):
            return f"the signature of {name!r} does not hold"
        held += 1
    needed = quorum_of(len(names))
    if held < needed:
        return f"{held} of the members before signed it, the replaced one not counted; {needed} are needed"
    return None


def members_after(folder: Path, wanted: Members, replacements: Sequence[Entry]) -> Members:
    """The members to believe from now on, where a ledger of others' entries lies.

    Args:
        folder: of that ledger, with the members that were believed until now; those wanted where there are none.
        wanted: those that the network's files name.
        replacements: that led from the ones to the others, oldest first.

    Raises:
        UsageError: they do not lead there.
        DataError: the ledger there goes on otherwise.
    """
    path = folder / MEMBERS_FILE
    known = Members.load(path) if path.exists() else wanted
    for entry in sorted(replacements, key=lambda entry: entry.height):
        told = Replacement.of(entry)
        if known.public(told.member, entry.height) == entry.body["public"]:
            continue  # known already
        flaw = signatures_flaw(entry, known)
        if flaw is not None:
            raise UsageError(f"{folder}: the members are not replaced as the network's files say: {flaw}")
        _fits(folder, entry)
        known = known.replaced(told.member, entry.body["public"], entry.height)
    if set(known.keys) != set(wanted.keys):
        raise UsageError(
            f"{path}: the network has other members, and nothing that a quorum of these signed says so. Use the "
            "folder of this network, or another folder"
        )
    return wanted


def _fits(folder: Path, entry: Entry) -> None:
    """Whether a ledger that may not have come as far as an entry can go on with it."""
    last = ending(folder).entry
    if last is None or last.height < entry.height - 1:
        return
    there = next(read_entries(folder, entry.height - 1))
    after = last if last.height < entry.height else next(read_entries(folder, entry.height))
    if there.hash != entry.previous or (after.height == entry.height and after.hash != entry.hash):
        raise DataError(
            f"{folder}: has entries beyond height {entry.height - 1} that the replacement of "
            f"{entry.body['member']!r} does not follow: more than f members lied, or the old network went on. Find out "
            "before anything is acted on"
        )
