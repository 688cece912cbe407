"""The event table: what it accepts, how it is brought into form, and that every file type gives it back."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pyarrow.parquet import ParquetWriter

from phalanx.data.events import KIND_CLASS, EventTable, event_class_of
from phalanx.data.readers import read_events
from phalanx.data.rolling import EVENT_CLASSES
from phalanx.errors import DataError, UsageError

FORMATS = (".parquet", ".arrow", ".feather", ".csv", ".csv.gz", ".ndjson", ".jsonl.gz")

# No control characters but line breaks: a file that is full of them is taken for binary.
_words = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\r\t\",; '"), max_size=8
)
_names = _words.filter(lambda word: word.strip() != "" and word.lower() not in ("true", "false"))


@st.composite
def tables(draw: st.DrawFn) -> EventTable:
    """Small tables with every contract column and attributes of each type, values that CSV finds hard included."""
    n = draw(st.integers(2, 6))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=n, max_size=n))

    numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=64)
    frame = pl.DataFrame(
        {
            "time_ns": column(st.integers(-(2**62), 2**62)),
            "subject": column(_names),
            "kind": column(_names.filter(lambda word: not word.startswith("EVENT_"))),
            "path": column(_words | st.sampled_from(["007", "1e5", "null", "NaN"])),
            "label": column(st.sampled_from([-1, 0, 1])),
            "protection": column(st.sampled_from(["", "3", "05"])),
            "size": [2.5, *column(numbers)[1:]],
            "count": [7, *column(st.none() | st.integers(-(2**63), 2**63 - 1))[1:]],
            "inside": [True, *column(st.none() | st.booleans())[1:]],
        },
        schema_overrides={"label": pl.Int8, "size": pl.Float64, "count": pl.Int64, "inside": pl.Boolean},
    )
    return EventTable.of(frame)


@pytest.mark.parametrize("suffix", FORMATS)
@given(table=tables())
def test_every_format_gives_the_table_back(suffix: str, table: EventTable, tmp_path: Path) -> None:
    file = tmp_path / f"events{suffix}"
    table.write(file)
    assert_frame_equal(EventTable.read(file).frame, table.frame)
    read = read_events(file)
    assert read.formats == ("phalanx",) and not read.rejects
    assert_frame_equal(read.table.frame, table.frame)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@given(table=tables())
def test_bringing_a_table_into_form_twice_changes_nothing(table: EventTable) -> None:
    assert_frame_equal(EventTable.of(table.frame).frame, table.frame)


@given(table=tables())
def test_time_order_sorts_stably(table: EventTable) -> None:
    rows = sorted(range(len(table)), key=lambda row: table.frame["time_ns"][row])
    assert_frame_equal(table.in_time_order().frame, table.frame[rows])


def _frame(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"time_ns": [1, 2], "subject": ["p", "q"], "kind": ["READ", "OPEN"], **columns})


def test_form() -> None:
    table = EventTable.of(
        _frame(
            extra=[float("nan"), 1.0],
            host=[None, "h"],
            kind=["EVENT_READ", "OPEN"],
            label=[None, 1],
            when=pl.Series([0, 5]).cast(pl.Datetime("us")),
        )
    )
    assert table.columns[:5] == ["time_ns", "host", "subject", "kind", "label"]
    assert table.frame["kind"].to_list() == ["READ", "OPEN"]
    assert table.frame["host"].to_list() == ["", "h"]
    assert table.frame["extra"].to_list() == [None, 1.0]
    assert table.frame["when"].to_list() == [0, 5000]
    assert table.labels.tolist() == [-1, 1]
    assert table.strings("campaign").to_list() == ["", ""]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (_frame().drop("kind"), "without column 'kind'"),
        (_frame(label=[0, 7]), "label=7 at row 1"),
        (_frame(label=[0, 700]), "wrong type"),
        (_frame(time_ns=["1", "soon"]), "wrong type"),
        (_frame(subject=["p", ""]), "empty 'subject' at row 1"),
    ],
)
def test_a_table_out_of_form_is_refused(frame: pl.DataFrame, says: str) -> None:
    with pytest.raises(DataError, match=says):
        EventTable.of(frame)


def test_the_constructor_does_not_convert() -> None:
    with pytest.raises(DataError, match="expected Int64"):
        EventTable(_frame(time_ns=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("times", "timed"),
    [
        ([0, 1, 2, 3], [1, 1, 1, 1]),
        ([0, 0, 5, 9], [1, 1, 1, 1]),
        ([5, 0, 9, 0], [1, 0, 1, 0]),
        ([0, 0, 10**18, 10**18 + 1], [0, 0, 1, 1]),
        ([10**18, 0, 10**18, 10**18], [1, 0, 1, 1]),
    ],
)
def test_rows_without_time(times: list[int], timed: list[int]) -> None:
    table = EventTable.of(pl.DataFrame({"time_ns": times, "subject": ["p"] * 4, "kind": ["READ"] * 4}))
    assert table.timed.astype(int).tolist() == timed


def test_kinds_have_a_class() -> None:
    assert set(KIND_CLASS.values()) < set(EVENT_CLASSES)
    # calls of the i386 table, by its numbers: execve, socketcall, mmap2, read, setuid32
    found = [EVENT_CLASSES[event_class_of(f"SYSCALL_{number}")] for number in (11, 102, 192, 3, 213)]
    assert found == ["process", "network", "memory", "file", "identity"]
    numbers = [kind for kind in KIND_CLASS if kind.startswith("SYSCALL_")]
    assert len(numbers) == len(set(numbers)) and all(0 < int(kind[8:]) < 400 for kind in numbers)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = EventTable.of(_frame())
    file = tmp_path / "events.parquet"
    table.write(file)
    before = file.read_bytes()

    def full(self: ParquetWriter, rows: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        EventTable.of(_frame(label=[0, 1])).write(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("name", ["events.xlsx", "events", "events.parquet.gz"])
def test_an_unknown_suffix_lists_the_choices(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.parquet, \.pq, \.arrow"):
        EventTable.of(_frame()).write(tmp_path / name)


def test_rows_are_taken_in_the_order_given() -> None:
    assert EventTable.of(_frame()).take(np.array([1, 0, 1])).frame["subject"].to_list() == ["q", "p", "q"]
