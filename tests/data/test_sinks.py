"""Streamed tables: the file is the one that is written at once, and there is none where writing failed."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from phalanx.data.files import load_frame, write_frame
from phalanx.data.sinks import write_frames
from phalanx.errors import UsageError

WHOLE = pl.DataFrame(
    {
        "time_ns": range(1, 8),
        "subject": ["a", 'with "quotes"', "b,c", "", "ü", "\n", "f"],
        "share": [0.5, None, 1e-9, 2.0, -3.5, 4.0, 5.0],
        "bait": [True, False] * 3 + [True],
    }
)
SUFFIXES = (".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv", ".ndjson", ".jsonl")
PACKED = (".csv.gz", ".ndjson.gz", ".jsonl.gz")


def parts() -> Iterator[pl.DataFrame]:
    yield WHOLE[:3]
    yield WHOLE[3:3]
    yield WHOLE[3:]


@pytest.mark.parametrize("suffix", [*SUFFIXES, *PACKED, ".CSV"])
def test_parts_make_the_file_that_the_whole_table_makes(tmp_path: Path, suffix: str) -> None:
    streamed, whole = tmp_path / f"streamed.v1{suffix}", tmp_path / f"whole{suffix}"
    write_frames(parts(), streamed)
    write_frame(WHOLE, whole)
    assert load_frame(streamed).frame.equals(load_frame(whole).frame)
    if "csv" in suffix.lower() or "json" in suffix:
        unpack = gzip.decompress if suffix in PACKED else bytes
        assert unpack(streamed.read_bytes()) == unpack(whole.read_bytes())


def test_each_part_is_a_row_group(tmp_path: Path) -> None:
    from pyarrow.parquet import ParquetFile

    write_frames((WHOLE[:3], WHOLE[3:]), tmp_path / "a.parquet")
    with ParquetFile(tmp_path / "a.parquet") as file:
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert sizes == [3, 4]


@pytest.mark.parametrize("suffix", [*SUFFIXES, *PACKED])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("old")

    def failing() -> Iterator[pl.DataFrame]:
        yield WHOLE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(failing(), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.parquet.gz", "a.gz", ".csv"])
def test_an_unknown_suffix_is_told_before_any_part_is_made(tmp_path: Path, name: str) -> None:
    asked = []
    frames = (asked.append(at) or WHOLE for at in range(2))
    with pytest.raises(UsageError, match="the suffix names the format: .parquet"):
        write_frames(frames, tmp_path / name)
    assert not asked and not list(tmp_path.iterdir())


def test_the_same_table_makes_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (*SUFFIXES, *PACKED):
        first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
        write_frames(parts(), first)
        write_frames(parts(), second)
        assert first.read_bytes() == second.read_bytes(), suffix
