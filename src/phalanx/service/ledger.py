"""The ledger: an append-only file of hash-chained, signed entries, one JSON line each; the one durable truth.

A folder holds segments (``ledger-00000001.ndjson`` and on; the first entry of each follows the last of the one before),
``members.json`` (whose signatures count) and what was kept aside of torn entries (``ledger.torn-<height>``).

An entry is in the kernel's hands when ``append`` returns: it survives the process. It is on the disk within the
interval of the group commit, or once ``sync`` returns: it survives the machine. No clock and no chance goes into an
entry: the same bodies in the same order make the same hashes.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import KINDS, Entry, Head, seal
from phalanx.service.ledger_files import (
    ending,
    keep_aside,
    new_segment,
    read_entries,
    segment_name,
    segments_there,
    torn_files,
)
from phalanx.service.members import Members
from phalanx.service.syncing import GroupCommit, LedgerBrokenError, sync_folder

__all__ = ["MEMBERS_FILE", "Entry", "Head", "Ledger", "LedgerBrokenError", "LedgerFullError", "read_entries"]

MEMBERS_FILE = "members.json"
"""The public keys, in the ledger's folder; verify them against a copy kept elsewhere."""

_LOCK_TRIES, _LOCK_WAIT_S = 5, 0.02
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LedgerFullError(DataError):
    """The disk is full: nothing was appended; the ledger can be used again once there is room."""


@dataclass(frozen=True)
class _Place:
    """Where the next entry goes: replaced at once, so that an interrupt finds the one before or the one after."""

    head: Head
    path: Path
    size: int


class Ledger:
    """A ledger that this process alone appends to; all its methods may be called from any thread.

    Attributes:
        torn: how many torn entries are kept aside, as of when it was opened.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> key = SigningKey.create(folder / "key.pem")
        >>> with Ledger.open(folder / "ledger", key) as ledger:
        ...     entry = ledger.append("mode", {"mode": "shadow"})
        >>> [entry.height for entry in read_entries(folder / "ledger")], entry.head.height
        ([1], 1)
    """

    def __init__(
        self, folder: Path, lock: int, signer: SigningKey, member: str, members: Members, segment_bytes: int
    ) -> None:
        self._folder = folder
        self._lock_descriptor = lock
        self._signer = signer
        self._member = member
        self._members = members
        self._segment_bytes = segment_bytes
        self._appending = threading.RLock()
        self.torn = 0
        self._failure: str | None = None
        self._descriptor = -1
        self._place = _Place(Head(), folder, 0)
        self._commit: GroupCommit

    @classmethod
    def open(
        cls,
        folder: Path,
        signer: SigningKey,
        *,
        member: str = "phalanx",
        members: Members | None = None,
        fsync_s: float = 0.1,
        segment_bytes: int = 64 * 2**20,
    ) -> "Ledger":
        """Opens a ledger for appending, or begins one.

        An entry that was not written to its end is cut off and kept aside.

        Args:
            folder: of the ledger; made where it is missing, for its owner alone.
            signer: signs the entries.
            member: whose key that is.
            members: public keys of a new ledger: this member's alone unless given.
            fsync_s: the longest that an entry waits for the group commit's sync; with 0 every append syncs.
            segment_bytes: a segment that would grow beyond this is followed by another.

        Raises:
            UsageError: another process has it open; the key is not the member's; an argument out of range.
            DataError: its end does not verify, or it cannot be read or written.
        """
        if not fsync_s >= 0.0 or segment_bytes < 1:
            raise UsageError(
                f"fsync_s={fsync_s}, segment_bytes={segment_bytes}; expected 0 or more, and 1 or more"
            )
        with contextlib.ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                sync_folder(folder.parent)
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, lock)
                _lock(folder, lock)
                known = _members(
                    folder, members or Members.of({member: signer.public}), given=members is not None
                )
                self = cls(folder, lock, signer, member, known, segment_bytes)
                self._resume(undo)
            except OSError as problem:
                raise DataError(
                    f"{folder}: cannot open the ledger ({problem.strerror}). Check the folder"
                ) from None
            self._own_key_signs(self.head.height + 1)
            self._commit = GroupCommit(str(folder), self._descriptor, self.head.height, fsync_s)
            undo.pop_all()
        return self

    @property
    def head(self) -> Head:
        """Where it ends."""
        return self._place.head

    @property
    def synced(self) -> int:
        """The height up to which this process knows all entries to be on the disk."""
        return self._commit.synced

    @property
    def members(self) -> Members:
        """Whose signatures count."""
        return self._members

    @property
    def broken(self) -> str | None:
        """Why no entry can be appended until the ledger is opened anew; None where they can."""
        return self._failure or self._commit.failure

    def append(
        self, kind: str, body: Mapping[str, Any], signatures: Mapping[str, str] | None = None
    ) -> Entry:
        """Appends one entry; once this returns, it survives the process.

        Args:
            kind: one of ``KINDS``.
            body: what it tells, of JSON's own types.
            signatures: of other members, over this very entry (``Head.statement`` of the head to come).

        Raises:
            LedgerFullError: the disk is full; nothing was appended.
            LedgerBrokenError: see ``broken``.
            DataError: the body has no form in JSON, or a signature does not hold.
            UsageError: an unknown kind, or this member's key does not sign this height.
        """
        return self._append([(kind, body)], signatures or {})[0]

    def append_many(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Entry]:
        """Appends entries, kind and body of each, in one write: all or, where that fails, none (see ``append``)."""
        return self._append(list(items), {})

    def sync(self) -> int:
        """Waits until all entries are on the disk, and returns the last one's height.

        Raises:
            LedgerBrokenError: the disk did not take them.
        """
        return self._commit.now()

    def replace_member(self, member: str, public: str, why: str) -> Entry:
        """Gives a member another key, from the height after the entry that says so on.

        The keys' file changes first: a kill in between leaves the replacement in force, without its entry.

        Raises:
            UsageError: the member's key begins later than that.
            DataError: no public key, or one that is in use; and what ``append`` raises.
        """
        with self._appending:
            first, before = self.head.height + 2, self._members
            members = before.replaced(member, public, first)
            members.save(self._folder / MEMBERS_FILE)
            self._members = members
            try:
                return self.append("member", {"member": member, "public": public, "from": first, "why": why})
            except DataError:
                before.save(self._folder / MEMBERS_FILE)
                self._members = before
                raise

    def close(self) -> None:
        """Syncs, and lets others open it.

        Raises:
            LedgerBrokenError: the last sync failed.
        """
        with self._appending:
            if self._lock_descriptor < 0:
                return
            self._failure = self._failure or f"{self._folder}: the ledger is closed. Open it anew"
            try:
                self._commit.close()
            finally:
                os.close(self._descriptor)
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except LedgerBrokenError:
            if error is None:
                raise

    def _append(self, items: list[tuple[str, Mapping[str, Any]]], others: Mapping[str, str]) -> list[Entry]:
        for kind, _ in items:
            if kind not in KINDS:
                raise unknown_name("kind of entry", kind, KINDS)
        with self._appending:
            if self.broken:
                raise LedgerBrokenError(self.broken)
            head, own, entries, written = self.head, {self._member: self._signer}, [], []
            for kind, body in items:
                self._own_key_signs(head.height + 1)
                entry, line = seal(head.height + 1, head.hash, kind, body, signers=own, signatures=others)
                self._check_others(entry, others)
                entries.append(entry)
                written.append(line)
                head = entry.head
            if entries:
                self._write(b"".join(written), head)
                self._commit.wrote(head.height)
        return entries

    def _write(self, data: bytes, head: Head) -> None:
        """Writes lines to their ends, or not at all."""
        try:
            if self._place.size and self._place.size + len(data) > self._segment_bytes:
                self._next_segment()
        except OSError as problem:
            self._refuse(problem)
        place = self._place
        about = os.fstat(self._descriptor)
        if about.st_size != place.size or not about.st_nlink:
            self._break(f"{place.path}: changed or deleted by somebody else while it was open")
        try:
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, memoryview(data)[done:])
            self._place = _Place(head, place.path, place.size + len(data))
        except BaseException as problem:  # an interrupt too: half a line must not stay
            if self._place is place:
                self._take_back(place)
            if isinstance(problem, OSError):
                self._refuse(problem)
            raise

    def _take_back(self, place: _Place) -> None:
        try:
            os.ftruncate(self._descriptor, place.size)
        except OSError as problem:
            self._break(
                f"{place.path}: cannot take back an entry that was not written to its end ({problem.strerror})"
            )

    def _refuse(self, problem: OSError) -> NoReturn:
        if problem.errno in _FULL:
            raise LedgerFullError(
                f"{self._folder}: the disk is full ({problem.strerror}); nothing was appended after height "
                f"{self.head.height}. Make room, then go on"
            ) from None
        self._break(f"{self._folder}: cannot be written to ({problem.strerror})")

    def _break(self, failure: str) -> NoReturn:
        self._failure = (
            f"{failure}. Nothing more is appended: look into it, run phalanx ledger verify, start again"
        )
        raise LedgerBrokenError(self._failure) from None

    def _next_segment(self) -> None:
        self._commit.now()
        path = self._folder / segment_name(int(self._place.path.stem.removeprefix("ledger-")) + 1)
        descriptor = new_segment(path, self._lock_descriptor)
        before, self._descriptor = self._descriptor, descriptor
        self._place = _Place(self.head, path, 0)
        self._commit.moved(descriptor)
        os.close(before)

    def _resume(self, undo: contextlib.ExitStack) -> None:
        """Opens the last segment at the end of its last whole entry."""
        found = ending(self._folder)
        head = found.entry.head if found.entry else Head()
        for member in head.signatures:
            public = self._members.public(member, head.height)
            if public is None or not head.statement(member).holds(public):
                raise DataError(
                    f"{self._folder}: the last entry (height {head.height}) is not signed by member "
                    f"{ascii(member)[:80]} as {MEMBERS_FILE} has its key. Run phalanx ledger verify"
                )
        if found.segments:
            path = found.segments[-1]
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        else:
            path = self._folder / segment_name(1)
            self._descriptor = new_segment(path, self._lock_descriptor)
        undo.callback(lambda: os.close(self._descriptor))
        if found.torn:
            keep_aside(self._folder, head.height + 1, found.torn, self._lock_descriptor)
            os.ftruncate(self._descriptor, found.size)
        self.torn = len(torn_files(self._folder))
        os.fsync(self._descriptor)
        self._place = _Place(head, path, found.size)

    def _own_key_signs(self, height: int) -> None:
        if self._members.public(self._member, height) != self._signer.public:
            raise UsageError(
                f"{self._folder}: the key {self._signer.public[:16]}... is not that of member {self._member!r} at "
                f"height {height} in {MEMBERS_FILE}. Give the member's key, or list this one from that height on"
            )

    def _check_others(self, entry: Entry, others: Mapping[str, str]) -> None:
        for member in others:
            public = self._members.public(member, entry.height)
            if public is None or not entry.head.statement(member).holds(public):
                raise DataError(
                    f"{self._folder}: the signature of member {ascii(member)[:80]} is not one of the entry of height "
                    f"{entry.height}; it signed another one, or is no member. Nothing was appended"
                )


def _lock(folder: Path, descriptor: int) -> None:
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_WAIT_S)  # who verifies holds it for an instant, to see whether somebody appends
    raise UsageError(
        f"{folder}: another process has this ledger open, and one alone may append. Stop it, or name another folder"
    )


def _members(folder: Path, wanted: Members, *, given: bool) -> Members:
    """The keys of the folder; those wanted become them where a ledger begins."""
    path = folder / MEMBERS_FILE
    if path.exists():
        known = Members.load(path)
        if given and known != wanted:
            raise UsageError(f"{path}: lists other keys than were given. Give none, or correct the file")
        return known
    if any(segment.stat().st_size for segment in segments_there(folder)):
        raise DataError(
            f"{path}: missing, and the ledger has entries. Restore it from where you keep the public keys"
        )
    wanted.save(path)
    return wanted
