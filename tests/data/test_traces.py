"""Traces: one row a period, or an error that says where not."""

from pathlib import Path

import polars as pl
import pytest

from phalanx.data.traces import read_trace
from phalanx.errors import DataError, UsageError


def written(tmp_path: Path, columns: dict[str, list]) -> Path:
    path = tmp_path / "trace.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_the_period_is_that_of_the_time_column(tmp_path: Path) -> None:
    start = 1_700_000_000_000_000_000  # a float would round the nanoseconds of such times to 256
    trace = read_trace(written(tmp_path, {"time_ns": [start, start + 1000, start + 2000], "x": [1, 2, 3]}))
    assert trace.period_s == 1e-6 and trace.frame.columns == ["time_ns", "x"]
    assert read_trace(written(tmp_path, {"time": [0.0, 0.1, 0.2], "x": [1, 2, 3]})).period_s == 0.1
    assert read_trace(written(tmp_path, {"x": [1, 2]})).period_s == 1.0
    assert read_trace(written(tmp_path, {"x": [1, 2]}), period_s=0.5).period_s == 0.5
    assert read_trace(written(tmp_path, {"time": [3.0], "x": [1]})).period_s == 1.0


def test_a_time_that_is_a_little_off_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, {"time": [0.0, 1.05, 2.0], "x": [1, 2, 3]})
    assert read_trace(path, period_s=1.0).period_s == 1.0


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([0.0, 2.0, 1.0], "row 3 \\(from 1\\); sort"),
        ([0.0, 0.0, 1.0], "row 2"),
        ([0.0, 1.0, 3.0], "row 3 .* is 2 s after"),
        ([0.0, 1.0, None], "a number in every row"),
        ([0.0, float("nan"), 2.0], "row 2"),
        (["a", "b", "c"], "a number in every row"),
    ],
)
def test_gaps_and_disorder_are_errors(tmp_path: Path, times: list, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_trace(written(tmp_path, {"time": times, "x": [1, 2, 3]}), period_s=1.0)


def test_signals_are_numbers(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"on": [True, False], "text": ["1.5", "2"], "gap": [1, None], "when": [[1], [2]]}
    )
    frame = read_trace(path, ("on", "text")).frame
    assert frame["on"].to_list() == [1.0, 0.0] and frame["text"].to_list() == [1.5, 2.0]
    with pytest.raises(DataError, match="row 2 \\(from 1\\), column 'gap': nothing is no number"):
        read_trace(path, ("gap",))
    with pytest.raises(DataError, match="column 'when' holds List"):
        read_trace(path, ("when",))
    with pytest.raises(UsageError, match="no column 'q', which the formula reads; it has: on, text"):
        read_trace(path, ("q",))
