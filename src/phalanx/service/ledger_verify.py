"""Whether a ledger is what was written: edits, removals, insertions, another order, signatures, decisions, its end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.errors import DataError
from phalanx.service.ledger_bodies import batch_flaw
from phalanx.service.ledger_entry import GENESIS, Entry, Head, entry_flaw, entry_hash
from phalanx.service.ledger_files import Line, is_open, lines, segments_there, torn_files
from phalanx.service.members import Members
from phalanx.service.statements import evidence_flaw

__all__ = ["Finding", "Verification", "verify_ledger"]

_RESTORE = "Restore the ledger from a copy that verifies"
_LIMIT = 20


@dataclass(frozen=True)
class Finding:
    """What is wrong with a ledger at one place.

    Attributes:
        file, line: where; the line is None where it is not about one.
        height: of the entry, as far as it can be told.
        reason: what is wrong.
        remedy: what to do.
    """

    file: Path
    line: int | None
    height: int | None
    reason: str
    remedy: str

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        height = "" if self.height is None else f" (height {self.height})"
        return f"{self.file}{line}{height}: {self.reason}. {self.remedy}"


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        head: where the ledger ends.
        entries: how many there are; decisions among them in ``decisions``.
        findings: what is wrong, at most one an entry, in order; none where it verifies.
        more: how many further findings there are.
        notes: what was seen and is no finding.
    """

    head: Head
    entries: int
    decisions: int
    findings: tuple[Finding, ...]
    more: int
    notes: tuple[str, ...]


def verify_ledger(
    where: Path, members: Members, *, head: Head | None = None, needed: int | None = None
) -> Verification:
    """Reads a whole ledger, one entry in memory at a time, and says what is wrong with it.

    Args:
        where: its folder, or a file that holds all of it.
        members: whose signatures count; from elsewhere than the ledger's own folder, or they say nothing.
        head: a head that was kept elsewhere: up to it nothing can have been changed or cut off unseen.
        needed: signatures that an entry needs; f + 1 of the members at its height unless given.

    Raises:
        DataError: it cannot be read.
    """
    walk = _Walk(where, members, head, needed)
    for line in _all_lines(where):
        walk.look_at(line)
    walk.end()
    return Verification(
        walk.last.head if walk.last else Head(),
        walk.entries,
        walk.decisions,
        tuple(walk.findings),
        walk.more,
        tuple(walk.notes),
    )


@dataclass
class _Walk:
    """What is known between one entry and the next.

    ``follows`` has the hashes that the next entry may name as the one before: the one that the last entry states and,
    where that is not the one of its content, that too, so that one edit is one finding; none after what is no entry.
    """

    where: Path
    members: Members
    kept: Head | None
    needed: int | None
    last: Entry | None = None
    expected: int = 1
    follows: tuple[str, ...] = (GENESIS,)
    unreadable: int = 0
    entries: int = 0
    decisions: int = 0
    more: int = 0
    met: bool = False
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(
        self, file: Path, line: int | None, height: int | None, reason: str, remedy: str = _RESTORE
    ) -> None:
        """Takes down a finding, or counts it where there are many."""
        if len(self.findings) < _LIMIT:
            self.findings.append(Finding(file, line, height, reason, remedy))
        else:
            self.more += 1

    def look_at(self, line: Line) -> None:
        """Takes down the first thing that is wrong with a line, if any, and goes on from what it says of itself."""
        if not line.whole:
            self._torn(line)
            return
        try:
            entry = Entry.parse(line.content)
        except DataError as problem:
            self.find(line.path, line.number, self.expected + self.unreadable, str(problem))
            self.unreadable += 1
            return
        self.entries += 1
        flaw = entry_flaw(entry, line.content)
        found = (
            (flaw, _RESTORE)
            if flaw
            else self._order(entry)
            or self._signatures(entry)
            or self._body(entry)
            or self._against_head(entry)
        )
        if found:
            self.find(line.path, line.number, entry.height, *found)
        if self.kept is not None and entry.height == self.kept.height:
            self.met = True
        self.last, self.expected, self.unreadable = entry, entry.height + 1, 0
        self.follows = (entry.hash, _hash_of(entry)) if flaw else (entry.hash,)

    def end(self) -> None:
        """What can be said once all is read."""
        height = self.last.height if self.last else 0
        if self.kept is not None:
            self._head_is_signed(self.kept)
            if self.kept.height > height:
                self.find(
                    self.where,
                    None,
                    None,
                    f"cut off: it ends at height {height}, and the head that was kept is of height {self.kept.height}",
                )
            elif self.kept.height and not self.met:
                self.find(
                    self.where, None, self.kept.height, "the entry of the head that was kept is not there"
                )
            elif height > self.kept.height:
                self.notes.append(
                    f"heights {self.kept.height + 1} to {height} come after the head that was kept"
                )
        else:
            self.notes.append("no --head: entries cut off at the end would not be seen")
        folder = self.where if self.where.is_dir() else self.where.parent
        if torn := torn_files(folder):
            self.notes.append(
                f"{len(torn)} entries that were not written to their ends are kept aside (ledger.torn-*)"
            )

    def _torn(self, line: Line) -> None:
        if is_open(self.where):
            self.notes.append("an entry is being written")
            return
        self.find(
            line.path,
            line.number,
            self.expected,
            f"{len(line.content)} bytes without an end of line: an entry that was not written to its end, or an edit",
            "If the service was killed, starting it cuts them off and keeps them aside",
        )

    def _order(self, entry: Entry) -> tuple[str, str] | None:
        if self.last is not None and entry.hash == self.last.hash:
            return "the entry before, once more", _RESTORE
        if self.unreadable and entry.height in range(self.expected, self.expected + self.unreadable + 1):
            # what could not be read stood in the place of an entry, or between two
            return (
                None if entry.height > self.expected or entry.previous in self.follows else _not_after(entry)
            )
        if entry.height > self.expected:
            missing = (
                f"{self.expected} to {entry.height - 1}"
                if entry.height - self.expected > 1
                else str(self.expected)
            )
            return f"height {missing} is missing before it", _RESTORE
        if entry.height < self.expected:
            return f"out of order: height {self.expected} was to come", _RESTORE
        return None if entry.previous in self.follows else _not_after(entry)

    def _signatures(self, entry: Entry) -> tuple[str, str] | None:
        listed = "Correct the file of public keys (--keys), or distrust the entry"
        for member in entry.signatures:
            public = self.members.public(member, entry.height)
            if public is None:
                if self.members.knows(member):
                    return f"signed by {ascii(member)[:80]}, whose keys do not sign this height", listed
                return f"signed by {ascii(member)[:80]}, who is no member", listed
            if not entry.head.statement(member).holds(public):
                return f"the signature of {member!r} does not hold", _RESTORE
        needed = self.members.needed(entry.height) if self.needed is None else self.needed
        if len(entry.signatures) < needed:
            return (
                f"{len(entry.signatures)} signatures where {needed} are needed",
                "Verify a copy that has them all, or say how many there should be (--signatures)",
            )
        return None

    def _body(self, entry: Entry) -> tuple[str, str] | None:
        remedy = "It was signed so: distrust who signed it"
        if entry.kind == "batch":
            flaw = batch_flaw(entry.body)
            if flaw:
                return flaw, remedy
            self.decisions += len(entry.body["decisions"])
        if entry.kind == "evidence":
            flaw = evidence_flaw(entry.body, self.members)
            return (flaw, remedy) if flaw else None
        if entry.kind == "member":
            told = tuple(entry.body.get(name) for name in ("member", "public", "from"))
            if told not in [(key.member, key.public, key.first) for key in self.members.keys]:
                return (
                    "it gives a member a key that the file of public keys does not have from that height on",
                    "If the replacement was meant, list it there; else distrust who signed it",
                )
        return None

    def _against_head(self, entry: Entry) -> tuple[str, str] | None:
        if self.kept is None or entry.height != self.kept.height or entry.hash == self.kept.hash:
            return None
        return (
            "another entry than that of the head that was kept: the ledger was written anew before it",
            _RESTORE,
        )

    def _head_is_signed(self, head: Head) -> None:
        if head.height == 0:
            return
        if not head.signatures:
            self.notes.append(
                "the head that was kept bears no signature: it is worth as much as where it was kept"
            )
        for member in head.signatures:
            public = self.members.public(member, head.height)
            if public is None or not head.statement(member).holds(public):
                self.find(
                    self.where,
                    None,
                    head.height,
                    f"the head that was kept is not signed by {ascii(member)[:80]} as it says",
                    "Take the head from where nobody else writes",
                )
                return


def _all_lines(where: Path) -> Iterator[Line]:
    paths = segments_there(where)
    if not paths:
        raise DataError(f"{where}: no ledger here (ledger-00000001.ndjson is missing). Check the path")
    for path in paths:
        yield from lines(path)


def _not_after(entry: Entry) -> tuple[str, str]:
    return f"it does not follow the entry before: it names another ({entry.previous[:16]}...)", _RESTORE


def _hash_of(entry: Entry) -> str:
    try:
        return entry_hash(entry.height, entry.previous, entry.kind, entry.body)
    except DataError:
        return entry.hash
