"""What a verification finds: any change to what was written, and what could not have been written honestly."""

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import batch_of, forged, key_of, members_of, small_ledger, verified

from phalanx.errors import DataError
from phalanx.service.ledger import Head, Ledger, read_entries
from phalanx.service.ledger_files import segment_name, segments
from phalanx.service.ledger_verify import Finding, Verification, verify_ledger
from phalanx.service.members import Members
from phalanx.service.statements import Statement, equivocation

ONE = Members.of({"phalanx": key_of(0).public})
SIGNER = {"phalanx": key_of(0)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ledger of some segments; not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    small_ledger(folder, segment_bytes=3000).close()
    assert len(segments(folder)) > 2
    return folder


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in segments(folder)]


def rewritten(folder: Path, parts: Sequence[bytes], **asked: Any) -> Verification:
    """What a verification finds in a folder with these segments."""
    for path in segments(folder) if folder.exists() else ():
        path.unlink()
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(parts, start=1):
        (folder / segment_name(number)).write_bytes(content)
    return verify_ledger(folder, ONE, **asked)


def places(found: Verification) -> list[tuple[str, int | None, int | None]]:
    return [(finding.file.name, finding.line, finding.height) for finding in found.findings]


def test_what_was_written_verifies(written: Path, tmp_path: Path) -> None:
    head = list(read_entries(written))[-1].head
    found = verify_ledger(written, members_of(written), head=head)
    assert found == Verification(head, 6, 8, (), 0, ())
    # in one file, too
    (tmp_path / "all.ndjson").write_bytes(b"".join(contents(written)))
    assert verify_ledger(tmp_path / "all.ndjson", ONE, head=head).findings == ()


@given(st.data())
def test_any_edited_byte_is_found(written: Path, tmp_path: Path, data: st.DataObject) -> None:
    parts = contents(written)
    which = data.draw(st.integers(0, len(parts) - 1))
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != parts[which][place]))
    parts[which] = parts[which][:place] + bytes([value]) + parts[which][place + 1 :]
    assert rewritten(tmp_path / "edited", parts).findings


def edits(parts: list[bytes], stride: int) -> list[tuple[int, int, int]]:
    chance = random.Random(5)
    return [
        (which, place, chance.randrange(1, 256))
        for which, part in enumerate(parts)
        for place in range(chance.randrange(stride), len(part), stride)
    ]


def all_found(written: Path, folder: Path, stride: int) -> None:
    parts = contents(written)
    rewritten(folder, parts)
    for which, place, change in edits(parts, stride):
        path = folder / segment_name(which + 1)
        changed = bytearray(parts[which])
        changed[place] ^= change
        path.write_bytes(changed)
        found = verify_ledger(folder, ONE)
        assert found.findings, f"byte {place} of segment {which + 1}, changed by {change}"
        assert found.findings[0].file == path
        path.write_bytes(parts[which])
    assert verify_ledger(folder, ONE).findings == ()


def test_edits_all_over_the_ledger_are_found_where_they_are(written: Path, tmp_path: Path) -> None:
    all_found(written, tmp_path / "edited", stride=41)


@pytest.mark.slow
def test_an_edit_of_every_single_byte_is_found_where_it_is(written: Path, tmp_path: Path) -> None:
    all_found(written, tmp_path / "edited", stride=1)


def by_lines(parts: list[bytes]) -> list[list[bytes]]:
    return [part.splitlines(keepends=True) for part in parts]


@given(st.integers(1, 5))
def test_a_removed_entry_is_found(written: Path, tmp_path: Path, height: int) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    found = rewritten(tmp_path / "removed", [b"".join(lines[: height - 1] + lines[height:])])
    assert places(found) == [(segment_name(1), height, height + 1)]
    assert f"height {height} is missing before it" in found.findings[0].reason


@given(st.integers(0, 5), st.integers(0, 6))
def test_an_entry_that_comes_again_is_found(written: Path, tmp_path: Path, which: int, where: int) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    found = rewritten(tmp_path / "again", [b"".join([*lines[:where], lines[which], *lines[where:]])])
    assert found.findings
    if which + 1 == where:
        assert "the entry before, once more" in found.findings[0].reason and len(found.findings) == 1


@given(st.permutations(range(6)).filter(lambda order: list(order) != sorted(order)))
def test_another_order_is_found(written: Path, tmp_path: Path, order: list[int]) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    assert rewritten(tmp_path / "order", [b"".join(lines[at] for at in order)]).findings


@given(
    st.integers(0, 6),
    st.sampled_from([b"\n", b"{}\n", b"null\n", b"\x00\n", b"not JSON\n", b"\xff\xfe\n", b'{"height":3}\n']),
)
def test_an_inserted_line_is_found_and_nothing_else(
    written: Path, tmp_path: Path, where: int, line: bytes
) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    found = rewritten(tmp_path / "inserted", [b"".join([*lines[:where], line, *lines[where:]])])
    assert places(found) == [(segment_name(1), where + 1, where + 1)]


def test_an_entry_of_another_ledger_is_found(written: Path, tmp_path: Path) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    forged(tmp_path / "other", [("mode", {"number": number}) for number in range(6)], SIGNER)
    others = contents(tmp_path / "other")[0].splitlines(keepends=True)
    for at in range(6):
        found = rewritten(tmp_path / "mixed", [b"".join([*lines[:at], others[at], *lines[at + 1 :]])])
        assert found.findings and (
            at == 0 or "it does not follow the entry before" in found.findings[0].reason
        )


@pytest.mark.parametrize("which", [0, 1])
def test_a_removed_segment_is_found(written: Path, tmp_path: Path, which: int) -> None:
    rewritten(tmp_path / "copy", contents(written))
    (tmp_path / "copy" / segment_name(which + 1)).unlink()
    found = verify_ledger(tmp_path / "copy", ONE)
    assert len(found.findings) == 1 and "missing before it" in found.findings[0].reason


def test_one_edit_is_one_finding(written: Path, tmp_path: Path) -> None:
    lines = [line for part in by_lines(contents(written)) for line in part]
    for old, new in ((b"EXECUTE", b"READ"), (b'"hash":"', b'"hash":"0'), (b'"hash":"a', b'"hash":"b')):
        changed = [line.replace(old, new) if at == 2 else line for at, line in enumerate(lines)]
        if changed != lines:
            assert places(rewritten(tmp_path / "edited", [b"".join(changed)])) == [(segment_name(1), 3, 3)]
    entry = json.loads(lines[2])
    entry["hash"] = "0" * 64
    lines[2] = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert places(rewritten(tmp_path / "edited", [b"".join(lines)])) == [(segment_name(1), 3, 3)]


def test_many_findings_are_counted(tmp_path: Path) -> None:
    found = rewritten(tmp_path / "nothing", [b"?\n" * 100])
    assert (len(found.findings), found.more, found.entries) == (20, 80, 0)


def test_a_cut_tail_is_found_by_the_head_alone(written: Path, tmp_path: Path) -> None:
    """Without a head a shorter ledger is as good as the whole one, and the verification says so."""
    lines = [line for part in by_lines(contents(written)) for line in part]
    head = list(read_entries(written))[-1].head
    for kept in range(1, 6):
        cut = [b"".join(lines[:kept])]
        found = rewritten(tmp_path / "cut", cut)
        assert found.findings == () and any("no --head" in note for note in found.notes)
        found = rewritten(tmp_path / "cut", cut, head=head)
        assert [finding.reason for finding in found.findings] == [
            f"cut off: it ends at height {kept}, and the head that was kept is of height 6"
        ]
    for missing in range(1, len(lines[-1])):
        if missing % 40 == 1:
            assert rewritten(tmp_path / "cut", [b"".join(lines)[:-missing]]).findings


def test_a_ledger_that_is_written_anew_is_found_by_the_head_alone(tmp_path: Path) -> None:
    """Whoever has the key can sign another history; not one that has the head that was kept."""
    first = forged(tmp_path / "first", [("mode", {"number": number}) for number in range(6)], SIGNER)
    forged(tmp_path / "anew", [("mode", {"number": number + (number == 3)}) for number in range(6)], SIGNER)
    assert verify_ledger(tmp_path / "anew", ONE).findings == ()
    for height in range(1, 7):
        found = verify_ledger(tmp_path / "anew", ONE, head=first[height - 1].head)
        reasons = [finding.reason for finding in found.findings]
        assert reasons == ([] if height <= 3 else [reasons[0]]) and (
            height <= 3 or "written anew before it" in reasons[0]
        )
        assert any(note.startswith(f"heights {height + 1} to 6 come after") for note in found.notes) == (
            height < 6
        )


def test_a_head_that_no_member_signed_is_found(written: Path) -> None:
    head = list(read_entries(written))[3].head
    for wrong in (
        dataclasses.replace(head, signatures={"phalanx": "0" * 128}),
        dataclasses.replace(head, signatures={"b": head.signatures["phalanx"]}),
    ):
        assert [
            "not signed by" in finding.reason for finding in verify_ledger(written, ONE, head=wrong).findings
        ] == [True]
    found = verify_ledger(written, ONE, head=dataclasses.replace(head, signatures={}))
    assert found.findings == () and any("bears no signature" in note for note in found.notes)
    assert verify_ledger(written, ONE, head=Head()).findings == ()


FOUR = {f"m{number}": key_of(number) for number in range(4)}
ITEMS = [("mode", {"mode": "shadow"})] * 3


def reasons(folder: Path, members: Members, **asked: Any) -> list[tuple[int | None, str]]:
    return [(finding.height, finding.reason) for finding in verify_ledger(folder, members, **asked).findings]


def test_signatures_of_strangers_and_of_members_whose_time_is_over(tmp_path: Path) -> None:
    forged(tmp_path, ITEMS, SIGNER)
    assert reasons(tmp_path, Members.of({"b": key_of(0).public}))[0] == (
        1,
        "signed by 'phalanx', who is no member",
    )
    assert reasons(tmp_path, Members.of({"phalanx": key_of(1).public}))[0] == (
        1,
        "the signature of 'phalanx' does not hold",
    )
    later = ONE.replaced("phalanx", key_of(1).public, 3)
    assert reasons(tmp_path, later) == [(3, "the signature of 'phalanx' does not hold")]
    over = Members(tuple(dataclasses.replace(key, last=2) for key in ONE.keys))
    assert reasons(tmp_path, over) == [(3, "signed by 'phalanx', whose keys do not sign this height")]


def test_a_committees_entries_need_one_signature_more_than_liars(tmp_path: Path) -> None:
    members = Members.of({name: key.public for name, key in FOUR.items()})
    for signers in range(5):
        forged(tmp_path / f"{signers}", ITEMS, dict(list(FOUR.items())[:signers]))
        found = reasons(tmp_path / f"{signers}", members)
        assert found == (
            [(height, f"{signers} signatures where 2 are needed") for height in (1, 2, 3)]
            if signers < 2
            else []
        )
    assert reasons(tmp_path / "1", members, needed=1) == []
    assert len(reasons(tmp_path / "3", members, needed=4)) == 3


def test_a_liars_signature_beside_good_ones_is_found(tmp_path: Path) -> None:
    members = Members.of({name: key.public for name, key in FOUR.items()})
    forged(tmp_path, ITEMS, {**FOUR, "m3": key_of(9)})
    assert reasons(tmp_path, members)[0] == (1, "the signature of 'm3' does not hold")


def dishonest(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    body = json.loads(json.dumps(batch_of(1, 2)))
    change(body)
    return body


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (
            "batch",
            dishonest(lambda body: body.update(digest="0" * 64)),
            "the batch digest is not that of its events",
        ),
        (
            "batch",
            dishonest(lambda body: body["decisions"][1].update(verdict=0)),
            "decision 1: the verdict is allow",
        ),
        (
            "batch",
            dishonest(lambda body: body["decisions"][0].update(quorum=False)),
            "decision 0: quorum is False",
        ),
        ("batch", dishonest(lambda body: body["decisions"].pop()), "no batch: 2 events and 1 decisions"),
        ("batch", {}, "no batch"),
        ("evidence", {}, "evidence holds two statements"),
        ("evidence", {"statements": [{}, {}]}, "not a statement"),
        (
            "member",
            {"member": "b", "public": key_of(5).public, "from": 4},
            "the file of public keys does not have",
        ),
        ("member", {"member": ["b"]}, "the file of public keys does not have"),
    ],
)
def test_what_was_signed_and_cannot_be_true_is_found(
    tmp_path: Path, kind: str, body: dict[str, Any], said: str
) -> None:
    forged(tmp_path, [("mode", {}), (kind, body), ("mode", {})], SIGNER)
    found = verify_ledger(tmp_path, ONE).findings
    assert [finding.height for finding in found] == [2] and said in found[0].reason


def test_evidence_of_a_lie_verifies(tmp_path: Path) -> None:
    one, other = (Statement.signed(key_of(0), "phalanx", 1, "vote", {"votes": [vote]}) for vote in (0, 1))
    forged(tmp_path, [("evidence", equivocation(one, other, ONE))], SIGNER)
    assert verify_ledger(tmp_path, ONE).findings == ()
    assert reasons(tmp_path, Members.of({"phalanx": key_of(1).public}))


def test_a_torn_end_is_no_finding_while_the_writer_is_at_work(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    path = segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes() + b'{"body":')
    found = verified(tmp_path)
    assert found.findings == () and "an entry is being written" in found.notes
    ledger.close()
    found = verified(tmp_path)
    assert ["8 bytes without an end of line" in finding.reason for finding in found.findings] == [True]
    with Ledger.open(tmp_path, key_of(0)):
        pass
    found = verified(tmp_path)
    assert (
        found.findings == ()
        and "1 entries that were not written to their ends are kept aside (ledger.torn-*)" in found.notes
    )


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the ledger"):
        verify_ledger(tmp_path / "nowhere", ONE)
    with pytest.raises(DataError, match="no ledger here"):
        verify_ledger(tmp_path, ONE)


def test_a_line_longer_than_any_entry_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.service.ledger_files.ENTRY_LIMIT", 1000)
    (tmp_path / segment_name(1)).write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match="longer than 1,000 bytes"):
        verify_ledger(tmp_path, ONE)


def test_a_finding_is_one_line_with_place_reason_and_remedy() -> None:
    finding = Finding(Path("ledger") / segment_name(1), 3, 7, "it is wrong", "Mend it")
    assert str(finding) == "ledger/ledger-00000001.ndjson, line 3 (height 7): it is wrong. Mend it"
    assert (
        str(Finding(Path("ledger"), None, None, "it is wrong", "Mend it")) == "ledger: it is wrong. Mend it"
    )
