"""Tables of signals, one row a period: read whole, with their time checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from phalanx.data.files import load_frame
from phalanx.data.rows import ROW
from phalanx.errors import DataError, UsageError

__all__ = ["TIME_COLUMNS", "Trace", "read_trace"]

TIME_COLUMNS = {"time": 1.0, "time_ns": 1e-9}
"""Names that a column of times may have, and its unit in seconds."""

_TOLERANCE = 0.1


@dataclass(frozen=True)
class Trace:
    """Samples of several signals.

    Attributes:
        frame: a column for each signal, a row for each sample.
        period_s: seconds between rows.
    """

    frame: pl.DataFrame
    period_s: float


def read_trace(path: Path, signals: Sequence[str] = (), period_s: float | None = None) -> Trace:
    """Reads a trace: CSV, NDJSON, Parquet or Arrow.

    Args:
        path: the file.
        signals: columns that are needed; they come out as float64.
        period_s: seconds between rows; that of the time column, else 1, unless given.

    Raises:
        UsageError: a signal that is no column.
        DataError: a file that cannot be read whole, a value that is no number, or a time column that does not ascend by
            one period a row (within a tenth of it, as in RTAMT).
    """
    loaded = load_frame(path)
    if loaded.rejects:
        first = loaded.rejects[0]
        raise DataError(
            f"{path}: row {first.row} (from 1) cannot be read: {first.reason} ({len(loaded.rejects)} such rows). "
            "A trace without them would have gaps; mend the file"
        )
    frame = loaded.frame.drop(ROW, strict=False)
    numbers = [_numbers(path, frame, name) for name in signals]
    name = next((name for name in TIME_COLUMNS if name in frame.columns), None)
    if name is None or frame.height < 2:
        return Trace(frame.with_columns(numbers), 1.0 if period_s is None else period_s)
    if not frame[name].dtype.is_numeric() or frame[name].null_count():
        raise DataError(f"{path}: column {name!r} is to hold a number in every row")
    steps = np.diff(frame[name].to_numpy()).astype(np.float64) * TIME_COLUMNS[name]
    back = np.flatnonzero(~(steps > 0.0))
    if back.size:
        raise DataError(
            f"{path}: time does not ascend at row {back[0] + 2} (from 1); sort the trace by {name!r}"
        )
    if period_s is None:
        period_s = float(np.round(np.median(steps), 9))
    off = np.flatnonzero(np.abs(steps - period_s) > _TOLERANCE * period_s)
    if off.size:
        raise DataError(
            f"{path}: row {off[0] + 2} (from 1) is {steps[off[0]]:g} s after the one before, not {period_s:g} s; "
            "resample the trace to one row a period"
        )
    return Trace(frame.with_columns(numbers), period_s)


def _numbers(path: Path, frame: pl.DataFrame, name: str) -> pl.Series:
    """A column as float64, every value a number."""
    if name not in frame.columns:
        known = ", ".join(frame.columns)
        raise UsageError(f"{path} has no column {name!r}, which the formula reads; it has: {known}")
    try:
        numbers = frame[name].cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        raise DataError(f"{path}: column {name!r} holds {frame[name].dtype}; expected numbers") from None
    bad = (numbers.is_null() | numbers.is_nan()).arg_true()
    if len(bad):
        value = frame[name][int(bad[0])]
        what = "nothing" if value is None or value == "" else repr(value)
        raise DataError(
            f"{path}: row {bad[0] + 1} (from 1), column {name!r}: {what} is no number ({len(bad)} such rows); "
            "fill them in or leave these rows out"
        )
    return numbers
