"""Rows on their way from a file to the event table: the good ones, and the bad ones with the reason."""

from dataclasses import dataclass

import polars as pl

__all__ = ["RAW_LIMIT", "ROW", "Loaded", "Reject"]

ROW = "__row__"
"""Name of the column that carries a record's number in its source (from 1, header not counted) while it is read."""

RAW_LIMIT = 2000
"""Characters kept of a row set aside."""


@dataclass(frozen=True)
class Reject:
    """A row set aside.

    Attributes:
        source: file it came from.
        row: number of the record in that file, from 1, header not counted.
        reason: what is wrong, what is allowed.
        raw: the row as it was (cut at 2,000 characters).
    """

    source: str
    row: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Loaded:
    """A file's good rows and its bad ones."""

    frame: pl.DataFrame
    rejects: tuple[Reject, ...] = ()
