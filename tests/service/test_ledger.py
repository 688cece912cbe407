"""A ledger as it is written, resumed and read."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from service.ledgers import batch_of, key_of, members_of, small_ledger, verified

from phalanx.errors import DataError, UsageError
from phalanx.service.ledger import Ledger, LedgerBrokenError, LedgerFullError, read_entries
from phalanx.service.ledger_entry import GENESIS, entry_hash
from phalanx.service.ledger_files import ending, segment_name, segments
from phalanx.service.members import Members
from phalanx.service.statements import Statement, equivocation

A_BODY = {"mode": "shadow"}


def grown(folder: Path, count: int, **asked: object) -> Ledger:
    """An open ledger of so many entries."""
    ledger = Ledger.open(folder, key_of(0), **asked)  # type: ignore[arg-type]
    for number in range(ledger.head.height, count):
        ledger.append("operator", {"number": number})
    return ledger


def test_entries_follow_one_another_over_segments_and_openings(tmp_path: Path) -> None:
    heads = []
    for _ in range(3):
        with small_ledger(tmp_path) as ledger:
            heads.append(ledger.head)
    entries = list(read_entries(tmp_path))
    assert [entry.height for entry in entries] == list(range(1, 19))
    assert [entry.previous for entry in entries] == [GENESIS, *(entry.hash for entry in entries[:-1])]
    assert entries[-1].head == heads[-1] and heads[0] == entries[5].head
    assert len(segments(tmp_path)) > 3 and all(path.stat().st_size <= 4096 for path in segments(tmp_path))
    assert verified(tmp_path, head=heads[1]).findings == ()
    assert entries[1].body == batch_of(0, 1)


def test_the_same_bodies_make_the_same_ledger(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_ledger(tmp_path / name).close()
    read = [[path.read_bytes() for path in segments(tmp_path / name)] for name in ("one", "two")]
    assert read[0] == read[1]


def test_many_entries_in_one_write(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, key_of(0)) as ledger:
        assert ledger.append_many([]) == []
        entries = ledger.append_many([("mode", A_BODY), ("batch", batch_of(1)), ("mode", A_BODY)])
        assert [entry.height for entry in entries] == [1, 2, 3] and ledger.head == entries[-1].head
    assert list(read_entries(tmp_path)) == entries
    assert verified(tmp_path).findings == ()


@pytest.mark.parametrize("segment_bytes", [1, 1500, 10**9])
@pytest.mark.parametrize("start", [1, 2, 6, 7, 8, 100])
def test_reading_begins_at_any_height(tmp_path: Path, segment_bytes: int, start: int) -> None:
    grown(tmp_path, 7, segment_bytes=segment_bytes).close()
    assert [entry.height for entry in read_entries(tmp_path, start)] == list(range(start, 8))


def test_a_single_file_is_read_too(tmp_path: Path) -> None:
    grown(tmp_path, 7, segment_bytes=1500).close()
    heights = [[entry.height for entry in read_entries(path)] for path in segments(tmp_path)]
    assert len(heights) > 1 and sum(heights, []) == list(range(1, 8))


def test_reading_stops_at_what_was_changed(tmp_path: Path) -> None:
    small_ledger(tmp_path).close()
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"event-1", b"event-8"))
    with pytest.raises(DataError, match=r"line 2 \(height 2\): its hash is not that of its content.*verify"):
        list(read_entries(tmp_path))
    path.write_bytes(b"".join(content.splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="does not follow"):
        list(read_entries(tmp_path))
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="torn in the middle"):
        list(read_entries(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match="ledger-00000001.ndjson is missing"):
        list(read_entries(tmp_path))


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    small_ledger(tmp_path / "new" / "ledger").close()
    assert stat.S_IMODE((tmp_path / "new" / "ledger").stat().st_mode) == 0o700
    for path in segments(tmp_path / "new" / "ledger"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", ["entry", "alone"])
def test_a_torn_entry_is_cut_off_and_kept_aside_wherever_it_broke(
    tmp_path: Path, cut: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every length that a kill can leave of the last line, alone in its segment or after others."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of openings; no power is cut here
    grown(tmp_path, 2, segment_bytes=1 if cut == "alone" else 10**6).close()
    path = segments(tmp_path)[-1]
    whole = path.read_bytes()
    begin = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(begin, len(whole)):
        path.write_bytes(whole[:length])
        caplog.clear()
        with Ledger.open(tmp_path, key_of(0)) as ledger:
            assert ledger.head.height == 1 and path.stat().st_size == begin
            aside = list(tmp_path.glob("ledger.torn-2*"))
            assert ledger.torn == len(aside) == (1 if length > begin else 0)
            if aside:
                assert aside[0].read_bytes() == whole[begin:length]
                assert stat.S_IMODE(aside[0].stat().st_mode) == 0o600
                assert f"{length - begin} bytes are kept in ledger.torn-2" in caplog.text
                aside[0].unlink()
        if length % 50 == 0:
            with Ledger.open(tmp_path, key_of(0)) as ledger:
                assert ledger.append("operator", {"number": 1}).height == 2
            assert verified(tmp_path).findings == ()
            assert path.read_bytes() == whole  # the same again: no clock, no chance


def test_a_first_entry_may_be_torn_and_torn_ones_are_all_kept(tmp_path: Path) -> None:
    for number in range(1, 4):
        grown(tmp_path, 1).close()
        path = segments(tmp_path)[0]
        path.write_bytes(path.read_bytes()[:-number])
        with Ledger.open(tmp_path, key_of(0)) as ledger:
            assert ledger.head.height == 0 and ledger.torn == number
    assert sorted(path.name for path in tmp_path.glob("ledger.torn*")) == [
        "ledger.torn-1",
        "ledger.torn-1.2",
        "ledger.torn-1.3",
    ]


def test_a_kill_between_a_new_segment_and_its_first_entry_is_nothing(tmp_path: Path) -> None:
    grown(tmp_path, 3).close()
    (tmp_path / segment_name(2)).touch()
    with Ledger.open(tmp_path, key_of(0)) as ledger:
        assert ledger.append("mode", A_BODY).height == 4
    assert (tmp_path / segment_name(2)).stat().st_size and verified(tmp_path).findings == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(b'"number":2', b'"number":3'), "its hash is not that of its content"),
        (lambda text: b"".join(text.splitlines(True)[:1] + text.splitlines(True)[2:]), "does not follow"),
        (lambda text: text + text.splitlines(True)[-1], "does not follow"),
        (lambda text: b"".join(text.splitlines(True)[2:]), "does not follow"),
        (lambda text: text + b"\n", "not JSON"),
        (lambda text: text + b"\x00" * 4096 + b"\n", "not JSON"),
        (lambda text: text[:-3] + b"!}\n", "not JSON"),
    ],
)
def test_an_end_that_does_not_verify_is_not_gone_on_from(tmp_path: Path, change, said: str) -> None:
    grown(tmp_path, 3).close()
    path = segments(tmp_path)[0]
    changed = change(path.read_bytes())
    path.write_bytes(changed)
    with pytest.raises(DataError, match=f"{said}.*Run phalanx ledger verify"):
        Ledger.open(tmp_path, key_of(0))
    assert path.read_bytes() == changed and not list(tmp_path.glob("ledger.torn*"))


def test_a_last_entry_that_a_member_did_not_sign_is_not_gone_on_from(tmp_path: Path) -> None:
    grown(tmp_path, 3).close()
    path = segments(tmp_path)[0]
    *before, last = path.read_bytes().splitlines(True)
    entry = json.loads(last)
    signature = entry["signatures"]["phalanx"]
    for signatures in (
        {"phalanx": signature[:-1] + ("0" if signature[-1] != "0" else "1")},
        {"other": signature},
    ):
        forged = {**entry, "signatures": signatures}
        path.write_bytes(
            b"".join([*before, json.dumps(forged, separators=(",", ":"), sort_keys=True).encode(), b"\n"])
        )
        with pytest.raises(DataError, match="the last entry .height 3. is not signed by member"):
            Ledger.open(tmp_path, key_of(0))


def test_one_alone_may_append(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from phalanx.errors import UsageError
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
try:
    Ledger.open(Path(sys.argv[1]), SigningKey.load(Path(sys.argv[2])))
except UsageError as error:
    print(error)
"""
    from phalanx.service.keys import SigningKey

    key = SigningKey.create(tmp_path / "key.pem")
    folder = tmp_path / "ledger"
    with Ledger.open(folder, key) as ledger:
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder), str(tmp_path / "key.pem")],
            capture_output=True,
            text=True,
        )
        assert "another process has this ledger open" in done.stdout and done.stderr == ""
        with pytest.raises(UsageError, match="another process has this ledger open"):
            Ledger.open(folder, key)
        assert ledger.append("mode", A_BODY).height == 1
    Ledger.open(folder, key).close()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot open the ledger"):
        Ledger.open(tmp_path / "file", key_of(0))
    for asked in ({"fsync_s": -1.0}, {"fsync_s": float("nan")}, {"segment_bytes": 0}):
        with pytest.raises(UsageError, match="expected 0 or more"):
            Ledger.open(tmp_path / "ledger", key_of(0), **asked)  # type: ignore[arg-type]
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(DataError, match="Permission denied"):
            Ledger.open(tmp_path / "closed", key_of(0))


def test_what_fails_to_open_gives_its_lock_back(tmp_path: Path) -> None:
    grown(tmp_path, 1).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(UsageError, match="not that of member"):
            Ledger.open(tmp_path, key_of(1))
    assert len(os.listdir("/proc/self/fd")) == before
    grown(tmp_path, 2).close()


def test_what_cannot_be_appended_changes_nothing(tmp_path: Path) -> None:
    with grown(tmp_path, 1) as ledger:
        head, content = ledger.head, segments(tmp_path)[0].read_bytes()
        with pytest.raises(UsageError, match="unknown kind of entry 'batches'"):
            ledger.append("batches", {})
        with pytest.raises(DataError, match="nan at a"):
            ledger.append_many([("mode", A_BODY), ("mode", {"a": float("nan")})])
        assert ledger.head == head and segments(tmp_path)[0].read_bytes() == content and ledger.broken is None
        assert ledger.append("mode", A_BODY).height == 2


def test_a_closed_ledger_takes_nothing(tmp_path: Path) -> None:
    ledger = grown(tmp_path, 1)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerBrokenError, match="the ledger is closed"):
        ledger.append("mode", A_BODY)


def test_threads_may_append_at_once(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, key_of(0), fsync_s=0.001, segment_bytes=20_000)

    def work(thread: int) -> None:
        for number in range(25):
            ledger.append("operator", {"thread": thread, "number": number})
            if number % 10 == 0:
                ledger.sync()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert verified(tmp_path).findings == ()
    for thread in range(4):
        told = [entry.body["number"] for entry in read_entries(tmp_path) if entry.body["thread"] == thread]
        assert told == list(range(25))


def test_what_is_appended_is_synced_in_the_background_at_once_or_when_asked(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "soon", key_of(0), fsync_s=0.001) as ledger:
        ledger.append("mode", A_BODY)
        while ledger.synced < 1:  # ends, or the suite does not
            time.sleep(0.001)
    with Ledger.open(tmp_path / "late", key_of(0), fsync_s=3600.0) as ledger:
        ledger.append("mode", A_BODY)
        assert ledger.synced == 0
        assert ledger.sync() == 1 == ledger.synced
    with Ledger.open(tmp_path / "now", key_of(0), fsync_s=0.0) as ledger:
        ledger.append("mode", A_BODY)
        assert ledger.synced == 1


def test_an_entry_bears_the_signatures_of_a_committee(tmp_path: Path) -> None:
    members = Members.of({f"m{number}": key_of(number).public for number in range(4)})
    ledger = Ledger.open(tmp_path, key_of(0), member="m0", members=members)
    hashed = entry_hash(1, GENESIS, "mode", A_BODY)

    def signature(number: int, hashed: str = hashed) -> str:
        return Statement.signed(key_of(number), f"m{number}", 1, "entry", {"hash": hashed}).signature

    for wrong in ({"m1": signature(2)}, {"m1": signature(1, "0" * 64)}, {"m9": signature(1)}):
        with pytest.raises(DataError, match="is not one of the entry of height 1"):
            ledger.append("mode", A_BODY, signatures=wrong)
    ledger.append("mode", A_BODY, signatures={"m2": signature(2)})
    ledger.append("mode", A_BODY)
    ledger.close()
    findings = verified(tmp_path).findings
    assert [(finding.height, finding.reason) for finding in findings] == [
        (2, "1 signatures where 2 are needed")
    ]
    assert verified(tmp_path, needed=1).findings == ()


def test_a_ledger_keeps_to_the_keys_that_it_has(tmp_path: Path) -> None:
    grown(tmp_path, 1).close()
    with pytest.raises(UsageError, match="lists other keys than were given"):
        Ledger.open(tmp_path, key_of(1), member="b", members=Members.of({"b": key_of(1).public}))
    with pytest.raises(UsageError, match="is not that of member 'b' at height 2"):
        Ledger.open(tmp_path, key_of(0), member="b")


def test_keys_that_are_gone_are_not_made_up(tmp_path: Path) -> None:
    grown(tmp_path, 1).close()
    (tmp_path / "members.json").unlink()
    with pytest.raises(DataError, match="members.json: missing, and the ledger has entries"):
        Ledger.open(tmp_path, key_of(0))
    segments(tmp_path)[0].write_bytes(b"")  # killed before its first entry: it begins anew
    grown(tmp_path, 1).close()


def test_a_replacement_that_cannot_be_written_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(tmp_path, key_of(0)) as ledger:
        before = ledger.members

        def full(descriptor: int, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(LedgerFullError):
                ledger.replace_member("b", key_of(2).public, "joins")
        assert ledger.members == before == members_of(tmp_path)
        assert ledger.replace_member("b", key_of(2).public, "joins").height == 1
    assert verified(tmp_path).findings == ()


def test_a_member_is_replaced(tmp_path: Path) -> None:
    """A member that said two things is given another key; its ledger verifies before and after."""
    members = Members.of({"phalanx": key_of(0).public, "b": key_of(1).public})
    ledger = Ledger.open(tmp_path, key_of(0), members=members)
    one, other = (Statement.signed(key_of(1), "b", 1, "vote", {"votes": [vote]}) for vote in (0, 1))
    ledger.append("evidence", equivocation(one, other, members))
    entry = ledger.replace_member("b", key_of(2).public, "said two things at height 1")
    assert entry.body == {
        "member": "b",
        "public": key_of(2).public,
        "from": 3,
        "why": "said two things at height 1",
    }
    assert [ledger.members.public("b", height) for height in (2, 3)] == [key_of(1).public, key_of(2).public]
    own = ledger.replace_member("phalanx", key_of(3).public, "rotated")
    assert own.height == 3
    with pytest.raises(UsageError, match="is not that of member 'phalanx' at height 4"):
        ledger.append("mode", A_BODY)
    ledger.close()
    with pytest.raises(UsageError, match="Give the member's key"):
        Ledger.open(tmp_path, key_of(0))
    with Ledger.open(tmp_path, key_of(3)) as ledger:
        ledger.append("mode", A_BODY)
    assert verified(tmp_path).findings == ()
    assert members_of(tmp_path).public("phalanx", 4) == key_of(3).public


def test_how_it_ends_is_read_from_the_end_alone(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, key_of(0)) as ledger:
        for size in (10, 200_000, 10, 70_000, 65_000):
            ledger.append("operator", {"text": "x" * size})
            last = ledger.append("operator", {"text": "y" * size})
            assert ending(tmp_path).entry == last
    path = segments(tmp_path)[0]
    path.write_bytes(b"#" * 1000 + path.read_bytes()[1000:])  # damage far before the end
    assert ending(tmp_path).entry is not None
    assert verified(tmp_path).findings
