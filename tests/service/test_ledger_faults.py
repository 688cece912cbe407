"""Disks that are full or fail: nothing half-written stays, and nothing is said to be kept that may not be."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service.ledgers import key_of, verified

from phalanx.errors import DataError
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger, LedgerBrokenError, LedgerFullError, read_entries
from phalanx.service.ledger_files import segments

BODY = {"text": "x" * 300}
Write = Callable[[int, memoryview], int]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger", key_of(0), fsync_s=3600.0)
    opened.append("operator", BODY)
    yield opened
    opened.__exit__(ValueError, None, None) if opened.broken else opened.close()


def through(
    monkeypatch: pytest.MonkeyPatch, path: Path, write: Callable[[Write, int, memoryview], int]
) -> None:
    """Puts something between the ledger and the disk, for the ledger's file alone."""
    real = os.write

    def instead(descriptor: int, data: memoryview) -> int:
        ours = os.fstat(descriptor).st_ino == path.stat().st_ino
        return write(real, descriptor, data) if ours else real(descriptor, data)

    monkeypatch.setattr(os, "write", instead)


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_short_writes_are_gone_on_with(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    through(monkeypatch, segments(tmp_path / "ledger")[0], lambda real, fd, data: real(fd, data[:step]))
    assert ledger.append("operator", BODY).height == 2
    assert verified(tmp_path / "ledger", head=ledger.head).findings == ()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("room", [0, 1, 100, 600])
@pytest.mark.parametrize("many", [1, 3])
def test_a_full_disk_takes_nothing_and_is_used_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, room: int, many: int
) -> None:
    path = segments(tmp_path / "ledger")[0]
    before, head, left = path.read_bytes(), ledger.head, [room]

    def full(real: Write, descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(code, os.strerror(code))
        done = real(descriptor, data[: left[0]])
        left[0] -= done
        return done

    with monkeypatch.context() as patch:
        through(patch, path, full)
        for _ in range(2):
            with pytest.raises(LedgerFullError, match="nothing was appended after height 1. Make room"):
                ledger.append_many([("operator", BODY)] * many)
            left[0] = room
            assert path.read_bytes() == before and ledger.head == head and ledger.broken is None
    assert ledger.append("operator", BODY).height == 2
    assert verified(tmp_path / "ledger").findings == ()


def test_the_kernels_own_limit_tears_no_entry(ledger: Ledger, tmp_path: Path) -> None:
    """A real short write, then a real refusal: the limit on the size of a file falls within an entry."""
    path = segments(tmp_path / "ledger")[0]
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(LedgerFullError, match="File too large"):
            ledger.append("operator", BODY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert ledger.append("operator", BODY).height == 2
    assert verified(tmp_path / "ledger").findings == ()


def test_a_disk_that_fills_up_between_segments_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path, key_of(0), segment_bytes=1)
    ledger.append("operator", BODY)
    real = os.open

    def full(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(LedgerFullError):
            ledger.append("operator", BODY)
    assert ledger.append("operator", BODY).height == 2 and len(segments(tmp_path)) == 2
    ledger.close()
    assert verified(tmp_path).findings == ()


def test_an_interrupt_within_a_write_leaves_no_half_entry(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = segments(tmp_path / "ledger")[0]
    before = path.read_bytes()

    def interrupted(real: Write, descriptor: int, data: memoryview) -> int:
        real(descriptor, data[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        through(patch, path, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.append("operator", BODY)
    assert path.read_bytes() == before
    assert ledger.append("operator", BODY).height == 2


def test_what_cannot_be_taken_back_ends_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = segments(tmp_path / "ledger")[0]

    def torn(real: Write, descriptor: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:-50])

    def refused(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        through(patch, path, torn)
        patch.setattr(os, "ftruncate", refused)
        with pytest.raises(LedgerBrokenError, match="cannot take back"):
            ledger.append("operator", BODY)
    with pytest.raises(LedgerBrokenError, match="cannot take back"):
        ledger.append("operator", BODY)
    ledger.close()
    with Ledger.open(tmp_path / "ledger", key_of(0)) as again:
        assert again.head.height == 1 and again.torn == 1


def test_a_failing_disk_ends_it(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(real: Write, descriptor: int, data: memoryview) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        through(patch, segments(tmp_path / "ledger")[0], failing)
        with pytest.raises(LedgerBrokenError, match="cannot be written to .Input/output error."):
            ledger.append("operator", BODY)
    with pytest.raises(LedgerBrokenError):
        ledger.append("operator", BODY)


def failing_sync(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    real, left = os.fsync, [times]

    def fsync(descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_failed_sync_is_final_though_the_next_would_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path, key_of(0), fsync_s=3600.0)
    ledger.append("operator", BODY)
    ledger.sync()
    ledger.append("operator", BODY)
    failing_sync(monkeypatch, times=1)
    with pytest.raises(LedgerBrokenError, match="did not take what was written after height 1"):
        ledger.sync()
    for refused in (ledger.sync, lambda: ledger.append("operator", BODY), ledger.close):
        with pytest.raises(LedgerBrokenError, match="Check the disk"):
            refused()
    assert ledger.synced == 1 and ledger.broken
    Ledger.open(tmp_path, key_of(0)).close()  # its lock was given back


def test_a_failed_sync_in_the_background_is_told_at_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path, key_of(0), fsync_s=0.001)
    failing_sync(monkeypatch, times=1)
    with pytest.raises(LedgerBrokenError, match="did not take"):
        while True:  # ends with the first append after the sync, or the suite does not
            ledger.append("operator", BODY)
    with pytest.raises(LedgerBrokenError):
        ledger.close()


def test_an_append_that_must_be_synced_is_not_acknowledged_if_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path, key_of(0), fsync_s=0.0)
    failing_sync(monkeypatch, times=1)
    with pytest.raises(LedgerBrokenError):
        ledger.append("operator", BODY)
    with pytest.raises(LedgerBrokenError):
        ledger.__exit__(None, None, None)


def test_a_disk_that_fails_at_the_opening_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger.open(tmp_path, key_of(0)).close()
    failing_sync(monkeypatch, times=1)
    with pytest.raises(DataError, match="cannot open the ledger .Input/output error."):
        Ledger.open(tmp_path, key_of(0))
    Ledger.open(tmp_path, key_of(0)).close()


@pytest.mark.parametrize("act", ["cut", "add", "delete"])
def test_a_file_that_somebody_changes_meanwhile_ends_it(ledger: Ledger, tmp_path: Path, act: str) -> None:
    path = segments(tmp_path / "ledger")[0]
    if act == "cut":
        os.truncate(path, 10)
    elif act == "add":
        path.write_bytes(path.read_bytes() + b"{}\n")
    else:
        path.unlink()
    with pytest.raises(LedgerBrokenError, match="changed or deleted by somebody else"):
        ledger.append("operator", BODY)


_FILLED = """
import sys
from pathlib import Path
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger, LedgerFullError
disk, key = Path(sys.argv[1]), SigningKey.load(Path(sys.argv[2]))
ballast = disk / "ballast"
ballast.write_bytes(bytes(64 * 1024))
ledger = Ledger.open(disk / "ledger", key, segment_bytes=50_000)
refused = 0
try:
    while True:
        ledger.append("operator", {"text": "x" * 3000})
except LedgerFullError:
    refused = ledger.head.height
ballast.unlink()
after = ledger.append("operator", {"text": "x" * 3000}).height
ledger.close()
print(refused, after, Ledger.open(disk / "ledger", key).head.height)
"""


def test_a_real_disk_that_is_full_and_has_room_again(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    SigningKey.create(key)
    disk = tmp_path / "disk"
    disk.mkdir()
    program = f"exec {sys.executable} -c '{_FILLED}' {disk} {key}"
    mount = f"mount -t tmpfs -o size=256k none {disk} && echo mounted >&2 && {program}"
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "mounted" not in done.stderr:
        pytest.skip("no right to mount a small disk here")
    refused, after, reopened = map(int, done.stdout.split())
    assert refused > 10 and after == reopened == refused + 1


def test_reading_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the ledger"):
        list(read_entries(tmp_path / "nowhere"))
    (tmp_path / "ledger-00000001.ndjson").mkdir()
    with pytest.raises(DataError, match="cannot read the ledger .Is a directory."):
        list(read_entries(tmp_path))
