"""A node's ledger whose end is not what was written: cut back to what is, for the engine tells the rest again."""

import fcntl
import logging
import os
from pathlib import Path

from phalanx.errors import DataError
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_entry import Entry, Head, entry_flaw
from phalanx.service.ledger_files import Line, keep_aside, lines, segments_there
from phalanx.service.members import Members

__all__ = ["cut_back", "open_mended"]

_LOG = logging.getLogger(__name__)


def open_mended(folder: Path, signer: SigningKey, *, member: str, members: Members) -> Ledger:
    """Opens a node's ledger (``Ledger.open``), cut back where its end does not verify.

    A ledger that stands alone must never lose a whole line. A node's may: its engine keeps every block and repeats
    those that the ledger does not have; what they lead to is the same again, or the engine stops at another app hash.

    Raises:
        UsageError, DataError: as ``Ledger.open``; the ledger was not the reason, or cannot be cut.
    """
    try:
        return Ledger.open(folder, signer, member=member, members=members)
    except DataError as problem:
        if not cut_back(folder):
            raise
        _LOG.error("%s; what follows is kept aside, and fetched again from the engine", problem)
        return Ledger.open(folder, signer, member=member, members=members)


def cut_back(folder: Path) -> int:
    """Cuts off a ledger's first line that is not an entry as it was written, and all after it; all is kept aside.

    Args:
        folder: of a ledger that nobody has open.

    Returns:
        How many bytes were cut off.

    Raises:
        DataError: the files cannot be read or written.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _cut_back(folder, descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise DataError(f"{folder}: cannot mend the ledger ({problem.strerror}). Check the folder") from None


def _cut_back(folder: Path, descriptor: int) -> int:
    head, cut = Head(), 0
    for path in segments_there(folder):
        good = 0
        if not cut:
            head, good = _good(path, head)
        size = path.stat().st_size
        if good == size:
            continue
        with open(path, "r+b") as file:
            file.seek(good)
            keep_aside(folder, head.height + 1, file.read(), descriptor)
            file.truncate(good)
            os.fsync(file.fileno())
        if cut:  # a segment after the one that was cut
            path.unlink()
        cut += size - good
    os.fsync(descriptor)
    return cut


def _good(path: Path, head: Head) -> tuple[Head, int]:
    """The last of a segment's entries that follow one another from a head on, and the bytes up to its end."""
    size = 0
    try:
        for line in lines(path):
            entry = _follows(line, head)
            if entry is None:
                break
            head, size = entry.head, size + len(line.content)
    except DataError:  # a line that is longer than any entry
        pass
    return head, size


def _follows(line: Line, head: Head) -> Entry | None:
    try:
        entry = Entry.parse(line.content)
    except DataError:
        return None
    whole = line.whole and entry_flaw(entry, line.content) is None
    return entry if whole and (entry.height, entry.previous) == (head.height + 1, head.hash) else None
