"""What every reader shares: its record, labels, times and the filling of columns that a source does not have."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from phalanx.data.events import CONTRACT_COLUMNS
from phalanx.data.rows import RAW_LIMIT, ROW, Reject
from phalanx.errors import DataError, one_line

__all__ = ["LABEL_WORDS", "Converted", "Part", "Reader", "finish", "label_column", "time_column"]

LABEL_WORDS: Mapping[str, int] = {
    **dict.fromkeys(
        ("1", "1.0", "true", "yes", "malicious", "attack", "anomaly", "anomalous", "suspicious", "evil"), 1
    ),
    **dict.fromkeys(("0", "0.0", "false", "no", "benign", "normal", "background"), 0),
    **dict.fromkeys(("-1", "-1.0", "unknown", "-", "", "none", "null"), -1),
}
"""Words that a label column may hold without a map; letter case does not matter."""


@dataclass(frozen=True, eq=False)
class Part:
    """One source as it was loaded: its name, its rows (with the row numbers in ``ROW`` where they are known)."""

    source: str
    frame: pl.DataFrame


@dataclass(frozen=True, eq=False)
class Converted:
    """A source in the contract's columns, its source columns beside them.

    Attributes:
        source: name for messages and rejects.
        frame: rows; contract columns may be missing or hold nulls, which ``finish`` fills or rejects.
        label: name of the column that holds the label, if any.
        label_values: label column -> its values (as text) -> 1, 0 or -1, before ``LABEL_WORDS``; the value ``*`` stands
            for all others, the column ``*`` for any.
        notes: what the reader filled in or decided.
        bad: row reason column built by the reader: null where the row is good.
    """

    source: str
    frame: pl.DataFrame
    label: str | None = None
    label_values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bad: pl.Series | None = None


@dataclass(frozen=True)
class Reader:
    """One source format.

    Attributes:
        name: of the format, as in ``--format``.
        matches: whether column names are those of the format.
        convert: brings the loaded source into the contract's columns.
    """

    name: str
    matches: Callable[[set[str]], bool]
    convert: Callable[[Part], Converted]


def time_column(series: pl.Series, unit: str | None = None) -> tuple[pl.Series, pl.Series, str]:
    """Times in ns since the epoch (or since the source's zero), which rows hold none that can be read, and the unit.

    Args:
        series: integers, floats, ISO 8601 text, numbers as text, or date and time values.
        unit: s, ms, us or ns; ``None``: by size (a typical value above 1e17 is ns, 1e14 us, 1e11 ms, else s).

    Returns:
        int64 times (null where bad), the bad rows, and the unit that was used.
    """
    scales = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    if unit is not None and unit not in (*scales, "iso"):
        raise DataError(f"time_unit={unit!r} in the map; expected s, ms, us, ns or iso")
    if series.dtype.is_temporal():
        return series.cast(pl.Datetime("ns")).dt.epoch("ns"), series.is_null(), "date and time"
    numbers = series
    if series.dtype == pl.String:
        numbers = series.cast(pl.Int64, strict=False)
        if (
            numbers.null_count() == len(series)
            or (numbers.is_null() & series.cast(pl.Float64, strict=False).is_not_null()).any()
        ):
            numbers = series.cast(pl.Float64, strict=False)
        if unit == "iso" or numbers.null_count() == len(series):
            parsed = series.str.to_datetime(
                time_unit="ns", strict=False, time_zone="UTC", ambiguous="earliest"
            )
            return parsed.dt.epoch("ns"), parsed.is_null(), "ISO 8601"
    if not numbers.dtype.is_numeric():
        return pl.Series([None] * len(series), dtype=pl.Int64), pl.Series([True] * len(series)), "none"
    size = abs(float(numbers.drop_nulls().median() or 0.0))  # type: ignore[arg-type]
    unit = unit or ("ns" if size > 1e17 else "us" if size > 1e14 else "ms" if size > 1e11 else "s")
    scale = scales[unit]
    if numbers.dtype.is_integer():
        limit = 2**63 // scale
        fits = numbers.is_between(-limit + 1, limit - 1)
        ns = numbers.cast(pl.Int64, strict=False).set(~fits.fill_null(False), None) * scale
    else:
        exact = numbers.is_finite() & (numbers.abs() * scale < 2.0**63)
        # whole seconds apart from the rest, so that a float64 epoch keeps its microseconds
        numbers = numbers.set(~exact.fill_null(False), None)
        whole = numbers.floor()
        ns = whole.cast(pl.Int64) * scale + ((numbers - whole) * scale).round().cast(pl.Int64)
    return ns, ns.is_null(), unit


def label_column(series: pl.Series, values: Mapping[str, int]) -> tuple[pl.Series, pl.Series]:
    """Labels 1, 0, -1 from a source column, and which rows hold something else.

    Args:
        series: of any type; null means unknown (-1).
        values: extra words -> label, before ``LABEL_WORDS``; ``*`` stands for all words in neither.
    """
    if series.dtype == pl.Boolean:
        text = series.cast(pl.Int8).cast(pl.String)
    elif series.dtype.is_float():
        whole = series.is_finite() & (series == series.floor())
        text = pl.select(
            pl.when(whole)
            .then(series.clip(-1e15, 1e15).cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(series.cast(pl.String))
        ).to_series()
    else:
        text = series.cast(pl.String)
    text = text.fill_null("").str.strip_chars()
    words = {str(word).strip().lower(): int(label) for word, label in values.items()}
    known = {**LABEL_WORDS, **words}
    table = {word: known.get(word.lower(), words.get("*")) for word in text.unique()}
    labels = text.replace_strict(list(table), list(table.values()), return_dtype=pl.Int8)
    return labels, labels.is_null()


def _raw_rows(frame: pl.DataFrame) -> list[str]:
    return [json.dumps(row, default=str)[:RAW_LIMIT] for row in frame.drop(ROW, strict=False).to_dicts()]


def finish(
    converted: Converted, label: str | None, *, offset: int = 0
) -> tuple[pl.DataFrame, list[Reject], list[str]]:
    """Fills what the source does not have, reads the label and sets bad rows aside.

    Args:
        converted: what a reader made.
        label: column that holds the truth, instead of the reader's own choice.
        offset: rows read from earlier sources, so that positions and filled-in subjects go on.

    Raises:
        DataError: an unknown label column, or no row left.
    """
    frame, notes = converted.frame, list(converted.notes)
    source = converted.source
    if ROW not in frame.columns:
        frame = frame.with_columns(pl.int_range(1, frame.height + 1, dtype=pl.Int64).alias(ROW))
    reasons = [
        converted.bad if converted.bad is not None else pl.Series([None] * frame.height, dtype=pl.String)
    ]
    chosen = label or converted.label
    if chosen is not None and chosen not in frame.columns:
        names = ", ".join(name for name in frame.columns if name != ROW)
        raise DataError(
            f"{source}: no column {chosen!r} for the label; it has: {names}. Pass --label with one of them"
        )
    if chosen is not None:
        values = converted.label_values.get(chosen, converted.label_values.get("*", {}))
        labels, bad = label_column(frame[chosen], values)
        shown = _shown(frame[chosen])
        reasons.append(_reason(bad, f"label {chosen}=" + shown + "; expected 0, 1 or -1. Pass --map"))
        frame = frame.with_columns(labels.fill_null(-1).alias("label"))
    if "time_ns" in frame.columns:
        times = frame["time_ns"].cast(pl.Int64, strict=False)
        shown = _shown(frame["time_ns"])
        reasons.append(
            _reason(times.is_null() & (shown != ""), "time_ns=" + shown + "; expected an integer, in ns")
        )
        frame = frame.with_columns(times.alias("time_ns"))
    frame, filled = _fill(frame, offset)
    notes += filled
    reason = pl.select(pl.coalesce(reasons)).to_series()
    bad_rows = reason.is_not_null()
    rejects = []
    if bad_rows.any():
        aside = converted.frame.filter(bad_rows)
        rows, why = frame[ROW].filter(bad_rows).to_list(), reason.filter(bad_rows).to_list()
        rejects = [Reject(source, *item) for item in zip(rows, why, _raw_rows(aside), strict=True)]
        frame = frame.filter(~bad_rows)
    if not frame.height:
        raise DataError(
            f"{source}: none of its {len(rejects)} rows can be used; row {rejects[0].row}: {rejects[0].reason}"
        )
    return frame.drop(ROW), rejects, [one_line(f"{source}: {note}") for note in notes]


def _shown(series: pl.Series) -> pl.Series:
    """Values as text, empty where there is none."""
    return series.cast(pl.String).fill_null("").str.strip_chars()


def _reason(bad: pl.Series, text: pl.Series | str) -> pl.Series:
    """The text where a row is bad, else null."""
    return pl.select(pl.when(bad).then(pl.lit(text)).otherwise(None).cast(pl.String)).to_series()


def _fill(frame: pl.DataFrame, offset: int) -> tuple[pl.DataFrame, list[str]]:
    """Adds the required columns that a source does not have; strings lose their nulls."""
    notes = []
    strings = [name for name, kind in CONTRACT_COLUMNS.items() if kind == pl.String and name in frame.columns]
    frame = frame.with_columns([pl.col(name).cast(pl.String).fill_null("") for name in strings])
    own_subject = pl.format("row-{}", pl.col(ROW) + offset)
    if "time_ns" not in frame.columns:
        position = pl.int_range(offset, offset + frame.height, dtype=pl.Int64)
        frame = frame.with_columns(position.alias("time_ns"))
        notes.append("no time; time_ns is the position in the file")
    for name, fill, done in (
        ("subject", own_subject, "each is a subject of its own"),
        ("kind", pl.lit("RECORD"), "their kind is RECORD"),
    ):
        if name not in frame.columns:
            frame = frame.with_columns(fill.alias(name))
            notes.append(f"no {name} in the source: of its rows {done}")
        elif empty := int((frame[name] == "").sum()):
            frame = frame.with_columns(
                pl.when(pl.col(name) == "").then(fill).otherwise(pl.col(name)).alias(name)
            )
            notes.append(f"{empty} rows without {name}: {done}")
    timeless = frame["time_ns"].null_count()
    if timeless:
        frame = frame.with_columns(pl.col("time_ns").fill_null(0))
        notes.append(f"{timeless} rows without time: time_ns is 0")
    return frame, notes
