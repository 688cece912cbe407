"""Single events are encoded as tables are."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.encoder import Encoder
from phalanx.data.events import EventTable
from phalanx.data.row_encoder import RowEncoder
from phalanx.errors import UsageError

KINDS = ["READ", "WRITE", "EXECUTE", "NOVEL"]
TEXT = st.one_of(st.sampled_from(["/etc/passwd", "/etc/a b", "C:\\Windows\\x", "", "x"]), st.text(max_size=8))


def table(rows: list[dict]) -> EventTable:
    schema = {
        "kind": pl.String,
        "path": pl.String,
        "command": pl.String,
        "uid": pl.Int64,
        "size": pl.Float64,
        "new": pl.Boolean,
    }
    return EventTable.of(
        pl.DataFrame(rows, schema=schema).with_columns(time_ns=pl.lit(0, pl.Int64), subject=pl.lit("p"))
    )


ROW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "path": st.none() | TEXT,
        "command": st.none() | TEXT,
        "uid": st.none() | st.integers(-3, 12),
        "size": st.none() | st.floats(-(2.0**40), 2.0**40, width=32),
        "new": st.none() | st.booleans(),
    }
)
KNOWN = table(
    [
        {
            "kind": KINDS[i % 3],
            "path": f"/etc/{i % 5}",
            "command": f"/bin/c{i % 4} -x",
            "uid": i % 7,
            "size": float(i * i % 37),
            "new": i % 2 == 0,
        }
        for i in range(60)
    ]
)
ENCODER = Encoder.fit(KNOWN)


@given(rows=st.lists(ROW, min_size=1, max_size=20))
def test_rows_are_encoded_as_in_a_table(rows: list[dict]) -> None:
    category, numeric = RowEncoder(ENCODER).encode(rows)
    expected = ENCODER.encode_columns(table(rows))
    np.testing.assert_array_equal(category, expected[0])
    np.testing.assert_array_equal(numeric, expected[1])


def test_the_columns_are_there() -> None:
    assert {c.source for c in ENCODER.categories} >= {"kind", "path", "command", "uid"}
    assert {n.name for n in ENCODER.numbers} >= {"size"}


def test_what_is_no_number_is_missing() -> None:
    rows = [
        {"kind": "READ", "size": value}
        for value in ("12", "1_0", " 3", "nan", "inf", "x", None, float("inf"))
    ]
    found = RowEncoder(ENCODER).encode(rows)[1]
    assert (found[1:] == found[6]).all() and found[0, 0] != found[6, 0]


def test_memory_of_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx.data.row_encoder._REMEMBERED", 10)
    rows = RowEncoder(ENCODER)
    for i in range(100):
        rows.encode([{"kind": f"k{i}", "path": f"/x/{i}"}])
    assert all(len(column._found) <= 10 for column in rows._columns)
    assert (
        rows.encode([{"kind": "READ"}])[0][0, 0] == ENCODER.encode_columns(table([{"kind": "READ"}]))[0][0, 0]
    )


def test_an_encoder_of_whole_tables_is_refused() -> None:
    with pytest.raises(UsageError, match="max"):
        RowEncoder(Encoder.fit(KNOWN, features=["size"], scaling="max"))
