"""The files of a ledger: segments in their order, their lines, their entries, and how they end."""

import fcntl
import itertools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phalanx.errors import DataError
from phalanx.service.ledger_entry import ENTRY_LIMIT, GENESIS, Entry, entry_flaw

__all__ = [
    "Ending",
    "Line",
    "ending",
    "is_open",
    "keep_aside",
    "lines",
    "new_segment",
    "read_entries",
    "segment_name",
    "segments",
    "torn_files",
]

_LOG = logging.getLogger("phalanx")
_SEGMENT = re.compile(r"ledger-(\d{8,})\.ndjson")
_CHUNK = 65_536
_REMEDY = "Run phalanx ledger verify, and restore the ledger from a copy"


@dataclass(frozen=True)
class Line:
    """A line of a segment.

    Attributes:
        path, number: where; numbers from 1, or from the end: -1 the last.
        content: its bytes, the newline with them.
    """

    path: Path
    number: int
    content: bytes

    @property
    def whole(self) -> bool:
        """Whether it ends in a newline, as every line of an entry that was written to its end does."""
        return self.content.endswith(b"\n")

    @property
    def place(self) -> str:
        """Where, for an error."""
        if self.number > 0:
            return f"{self.path}, line {self.number}"
        return f"{self.path}, last line{' but one' if self.number < -1 else ''}"


@dataclass(frozen=True)
class Ending:
    """How a ledger ends.

    Attributes:
        entry: the last one; None where there is none.
        segments: all of them.
        size: bytes of the last segment's whole lines.
        torn: what follows them, without a newline: an entry that was not written to its end.
    """

    entry: Entry | None
    segments: tuple[Path, ...]
    size: int
    torn: bytes


def segment_name(number: int) -> str:
    """The name of a segment's file.

    Example:
        >>> segment_name(1)
        'ledger-00000001.ndjson'
    """
    return f"ledger-{number:08d}.ndjson"


def segments_there(where: Path) -> tuple[Path, ...]:
    """The segments of a ledger's folder in their order, whether or not some are missing; or the one file.

    Raises:
        DataError: it is neither.
    """
    if where.is_file():
        return (where,)
    try:
        names = [name for name in os.listdir(where) if _SEGMENT.fullmatch(name)]
    except OSError as problem:
        raise DataError(f"{where}: cannot read the ledger ({problem.strerror}). Check the path") from None
    return tuple(where / name for name in sorted(names, key=lambda name: (int(name[7:-7]), name)))


def segments(where: Path) -> tuple[Path, ...]:
    """The segments of a ledger's folder in their order, or the one file.

    Raises:
        DataError: it is neither, or a segment is missing.
    """
    paths = segments_there(where)
    for number, path in enumerate(paths, start=1):
        if where.is_dir() and path.name != segment_name(number):
            raise DataError(
                f"{where}: {segment_name(number)} is missing before {path.name}. Restore it from a copy"
            )
    return paths


def torn_files(folder: Path) -> tuple[Path, ...]:
    """What was kept aside of entries that were not written to their ends."""
    return tuple(sorted(folder.glob("ledger.torn-*")))


def is_open(where: Path) -> bool:
    """Whether a process has the ledger open for appending now."""
    try:
        descriptor = os.open(where if where.is_dir() else where.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # which gives the lock back
    return False


def new_segment(path: Path, folder: int) -> int:
    """Makes a segment's file and returns its descriptor; the folder's is synced, so that the name survives a power cut.

    Raises:
        OSError: it is there already, or the disk is full or failed; nothing is left behind.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fsync(folder)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def keep_aside(folder: Path, height: int, torn: bytes, descriptor: int) -> None:
    """Saves the bytes of a torn entry, before they are cut off, and says so in the log.

    Args:
        folder: of the ledger; ``descriptor`` is its own.
        height: that the entry would have had.
        torn: its bytes.

    Raises:
        OSError: they cannot be saved.
    """
    first = f"ledger.torn-{height}"
    names = itertools.chain([first], (f"{first}.{again}" for again in itertools.count(2)))
    name = next(name for name in names if not (folder / name).exists())
    with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(torn)
        file.flush()
        os.fsync(file.fileno())
    os.fsync(descriptor)
    _LOG.warning(
        "%s: the entry of height %d was not written to its end; its %d bytes are kept in %s",
        folder,
        height,
        len(torn),
        name,
    )


def lines(path: Path) -> Iterator[Line]:
    """The lines of a segment, one in memory at a time.

    Raises:
        DataError: it cannot be read, or a line is longer than any entry.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while content := file.readline(ENTRY_LIMIT + 1):
                number += 1
                line = Line(path, number, content)
                if len(content) > ENTRY_LIMIT and not line.whole:
                    raise DataError(
                        f"{line.place}: longer than {ENTRY_LIMIT:,} bytes, which no entry is. {_REMEDY}"
                    )
                yield line
    except OSError as problem:
        raise DataError(f"{path}: cannot read the ledger ({problem.strerror}). Check the file") from None


def read_entries(where: Path, start: int = 1) -> Iterator[Entry]:
    """The entries of a ledger, one in memory at a time; hashes are checked, and that each follows the one before.

    Signatures are not (``ledger_verify.verify``). What is being written, or was not written to its end, is left out.

    Args:
        where: its folder, or one file.
        start: height to begin at; segments before it are skipped.

    Raises:
        DataError: it cannot be read, or an entry is not what was written or does not follow the one before.
    """
    paths = segments(where)
    before: Entry | None = None
    at, skipped = _begin(paths, start)
    for path in paths[at:]:
        for line in lines(path):
            if path == paths[at] and line.number <= skipped:
                continue
            if not line.whole:
                if path == paths[-1]:
                    return
                raise DataError(f"{line.place}: torn in the middle of the ledger. {_REMEDY}")
            entry = _checked(line, before)
            if before is None and path == paths[0] and line.number == 1 and where.is_dir():
                _follows(line, entry, None)
            before = entry
            if entry.height >= start:
                yield entry


def ending(where: Path) -> Ending:
    """How a ledger ends, checked: its last entry is what was written and follows the one before.

    Raises:
        DataError: it cannot be read, or does not.
    """
    paths = segments(where)
    kept: list[Line] = []
    size, torn = 0, b""
    for path in reversed(paths):
        tail, whole, rest = _tail(path)
        if path == paths[-1]:
            size, torn = whole, rest
        elif rest:
            raise DataError(f"{path}: torn in the middle of the ledger. {_REMEDY}")
        kept = [*tail, *kept][-2:]
        if len(kept) == 2:
            break
    entries: list[Entry] = []
    for line in kept:
        entries.append(_checked(line, entries[-1] if entries else None))
    if len(entries) == 1 and where.is_dir():
        _follows(kept[0], entries[0], None)
    return Ending(entries[-1] if entries else None, paths, size, torn)


def _begin(paths: tuple[Path, ...], height: int) -> tuple[int, int]:
    """Where to begin so as to meet the entry of a height and the one before: the segment's number, from 0, and how many
    of its lines need not be looked at. Heights go up by one a line."""
    for at in range(len(paths) - 1, -1, -1):
        first = next(lines(paths[at]), None)
        if first is not None and first.whole:
            begins = _checked(first, None).height
            if begins <= height:
                return at, max(0, height - begins - 1)
    return 0, 0


def _checked(line: Line, before: Entry | None) -> Entry:
    try:
        entry = Entry.parse(line.content)
    except DataError as problem:
        raise DataError(f"{line.place}: {problem}. {_REMEDY}") from None
    flaw = entry_flaw(entry, line.content)
    if flaw:
        raise DataError(f"{line.place} (height {entry.height}): {flaw}. {_REMEDY}")
    if before is not None:
        _follows(line, entry, before)
    return entry


def _follows(line: Line, entry: Entry, before: Entry | None) -> None:
    height, hashed = (1, GENESIS) if before is None else (before.height + 1, before.hash)
    if (entry.height, entry.previous) != (height, hashed):
        raise DataError(
            f"{line.place} (height {entry.height}): does not follow the entry before, of height {height - 1}. {_REMEDY}"
        )


def _tail(path: Path) -> tuple[list[Line], int, bytes]:
    """The last two whole lines of a segment, the bytes of all whole lines, and what follows them.

    Lines are numbered from the end, for nothing before them is read.
    """
    try:
        with path.open("rb") as file:
            begin = size = file.seek(0, os.SEEK_END)
            tail = b""
            while begin and tail.count(b"\n") < 3:
                step = min(begin, max(_CHUNK, len(tail)))
                begin -= step
                file.seek(begin)
                tail = file.read(step) + tail
                if len(tail) > 8 * ENTRY_LIMIT:
                    raise DataError(f"{path}: ends in lines longer than any entry. {_REMEDY}")
    except OSError as problem:
        raise DataError(f"{path}: cannot read the ledger ({problem.strerror}). Check the file") from None
    whole, newline, torn = tail.rpartition(b"\n")
    if not newline:
        return [], 0, torn
    found = whole.split(b"\n")
    if begin:
        found = found[1:]  # may be the end of a longer line
    kept = found[-2:]
    return [Line(path, at - len(kept), line + b"\n") for at, line in enumerate(kept)], size - len(torn), torn
