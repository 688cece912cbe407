"""Ledgers of nodes whose ends were damaged: every entry before the damage stays, all after it is kept aside."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.mending import cut_back, open_mended
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger, read_entries
from phalanx.service.ledger_files import segment_name, torn_files
from phalanx.service.members import Members

ENTRIES = 12


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("key") / "key.pem")


def made(folder: Path, key: SigningKey, segment_bytes: int) -> list[bytes]:
    """Makes a ledger; the content of its segments."""
    members = Members.of({"node0": key.public})
    with Ledger.open(folder, key, member="node0", members=members, segment_bytes=segment_bytes) as ledger:
        for number in range(ENTRIES):
            ledger.append("mode", {"mode": "shadow", "why": "x" * (37 * number % 400)})
    return [path.read_bytes() for path in sorted(folder.glob("ledger-*.ndjson"))]


@pytest.mark.parametrize("segment_bytes", [2**26, 1500])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), how=st.sampled_from(["cut", "garbage", "zeros", "a line of garbage"]))
def test_what_comes_before_the_damage_stays_and_the_rest_can_be_written_again(
    tmp_path_factory: pytest.TempPathFactory, key: SigningKey, segment_bytes: int, seed: int, how: str
) -> None:
    folder = tmp_path_factory.mktemp("mend") / "ledger"
    segments = made(folder, key, segment_bytes)
    hashes = [entry.hash for entry in read_entries(folder)]
    assert len(segments) == 1 if segment_bytes > 2**20 else len(segments) > 2
    dice = random.Random(seed)
    at = dice.randrange(len(segments))
    begin = dice.randrange(len(segments[at]))
    some = dice.randrange(1, 1 + len(segments[at]) - begin)
    path = folder / segment_name(at + 1)
    wrong = {
        "cut": b"",
        "garbage": bytes(b ^ 0x55 for b in segments[at][begin : begin + some]),
        "zeros": bytes(some),
        "a line of garbage": b"{}\n",
    }[how]
    rest = b"" if how == "cut" else segments[at][begin + some :]
    path.write_bytes(segments[at][:begin] + wrong + rest)
    damaged = b"".join(p.read_bytes() for p in sorted(folder.glob("ledger-*.ndjson")))

    # by hand: whole lines that are, byte for byte, those that were written, up to the first that is not
    before = b"".join(segments)
    lines, good = before.splitlines(keepends=True), 0
    while good < ENTRIES and damaged.startswith(b"".join(lines[: good + 1])):
        good += 1
    assert cut_back(folder) == len(damaged) - len(b"".join(lines[:good]))
    members = Members.of({"node0": key.public})
    with Ledger.open(folder, key, member="node0", members=members) as ledger:
        assert ledger.head.height == good
        for _ in range(2):
            ledger.append("mode", {"mode": "shadow"})
    found = [entry.hash for entry in read_entries(folder)]
    assert len(found) == good + 2 and found[:good] == hashes[:good]
    kept = [path.read_bytes() for path in torn_files(folder)]
    assert sorted(b"".join(kept)) == sorted(damaged[len(b"".join(lines[:good])) :])


@pytest.mark.parametrize("back", [1, 100, 600])
def test_a_node_opens_a_ledger_whose_end_was_overwritten(tmp_path: Path, key: SigningKey, back: int) -> None:
    folder = tmp_path / "ledger"
    (content,) = made(folder, key, 2**26)
    members = Members.of({"node0": key.public})
    (folder / segment_name(1)).write_bytes(content[:-back] + b"\0" * (back - 1) + b"\n")
    whole = content[: len(content) - back].count(b"\n") if back > 1 else ENTRIES
    if back > 1:
        with pytest.raises(DataError, match="Run phalanx ledger verify"):
            Ledger.open(folder, key, member="node0", members=members)
    with open_mended(folder, key, member="node0", members=members) as ledger:
        assert ledger.head.height == whole


def test_what_is_whole_is_not_touched(tmp_path: Path, key: SigningKey) -> None:
    segments = made(tmp_path / "ledger", key, 1500)
    assert cut_back(tmp_path / "ledger") == 0
    assert [p.read_bytes() for p in sorted((tmp_path / "ledger").glob("ledger-*.ndjson"))] == segments
    assert not torn_files(tmp_path / "ledger")


def test_a_line_longer_than_any_entry_is_cut_off_too(
    tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.service.ledger_files.ENTRY_LIMIT", 2000)
    segments = made(tmp_path / "ledger", key, 2**26)
    path = tmp_path / "ledger" / segment_name(1)
    path.write_bytes(segments[0] + b"x" * 20_000 + b"\n")
    assert cut_back(tmp_path / "ledger") == 20_001
    assert path.read_bytes() == segments[0]


def test_a_ledger_that_is_open_or_fails_for_another_reason_is_left_alone(
    tmp_path: Path, key: SigningKey
) -> None:
    folder = tmp_path / "ledger"
    segments = made(folder, key, 2**26)
    members = Members.of({"node0": key.public})
    (folder / segment_name(1)).write_bytes(segments[0] + b"{}\n")
    with (
        Ledger.open(tmp_path / "other", key, member="node0", members=members),
        pytest.raises(DataError, match="cannot mend"),
    ):
        cut_back(tmp_path / "other")
    (folder / segment_name(1)).write_bytes(segments[0])
    (folder / "members.json").write_text("{}")
    with pytest.raises((DataError, UsageError)):
        open_mended(folder, key, member="node0", members=members)
    assert (folder / segment_name(1)).read_bytes() == segments[0]
