"""The event table: what every reader makes, every file holds and every environment replays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Int8, Int64

from phalanx.data.rolling import EVENT_CLASSES
from phalanx.errors import DataError

__all__ = [
    "CONTRACT_COLUMNS",
    "EventTable",
    "KIND_CLASS",
    "REQUIRED_COLUMNS",
    "TRUTH_COLUMNS",
    "event_class_of",
]

REQUIRED_COLUMNS = ("time_ns", "subject", "kind")

CONTRACT_COLUMNS: Mapping[str, pl.DataType] = {
    "time_ns": pl.Int64(),
    "host": pl.String(),
    "subject": pl.String(),
    "parent": pl.String(),
    "kind": pl.String(),
    "object": pl.String(),
    "object_kind": pl.String(),
    "path": pl.String(),
    "command": pl.String(),
    "label": pl.Int8(),
    "campaign": pl.String(),
    "stage": pl.String(),
}

TRUTH_COLUMNS = ("label", "campaign", "stage", "technique", "cause", "bait")
"""What is known of an event only afterwards, or to the simulator alone; never an input."""

_EPOCH_NS = (
    10**17
)  # times above it count from 1970 (they are later than 1973), smaller ones from the source's start

_CLASS_KINDS = {
    "process": "EXECUTE FORK CLONE EXIT SIGNAL WAIT UNIT CREATE_THREAD START_SERVICE STARTSERVICE MODIFY_PROCESS "
    "LOADLIBRARY TRACE INJECT TERMINATE RECORD_SUBJECT RECORD_UNIT_DEPENDENCY",
    "file": "OPEN READ WRITE CLOSE UNLINK RENAME CREATE_OBJECT TRUNCATE MODIFY_FILE_ATTRIBUTES LINK UPDATE LSEEK FCNTL "
    "CHECK_FILE_ATTRIBUTES DUP MOUNT UMOUNT FLOWS_TO COPY RECORD_FILE_OBJECT",
    "network": "CONNECT ACCEPT BIND LISTEN SOCKET SENDMSG RECVMSG SENDTO RECVFROM READ_SOCKET_PARAMS "
    "WRITE_SOCKET_PARAMS FLOW DNS RECORD_NET_FLOW_OBJECT",
    "memory": "MMAP MPROTECT MUNMAP SHM BRK RECORD_MEMORY_OBJECT",
    "identity": "CHANGE_PRINCIPAL LOGIN LOGOUT SETUID SETGID RECORD_PRINCIPAL",
}

# ADFA-LD was recorded on 32-bit Linux: the numbers are those of the i386 system-call table.
_CLASS_SYSCALLS = {
    "process": "1 2 7 11 26 37 72 97 114 119 120 136 173 174 175 176 179 190 238 240 252 270 284",
    "file": "3 4 5 6 8 9 10 12 14 15 16 18 19 28 30 33 38 39 40 41 42 54 55 57 61 63 83 84 85 92 93 "
    "94 95 99 100 106 107 108 118 133 140 141 142 143 144 145 146 148 168 180 181 182 183 193 "
    "194 195 196 197 198 212 220 221 268 269 295 296 300 301 302 303 304 306 307",
    "network": "102",
    "memory": "45 90 91 125 150 151 163 192 218 219",
    "identity": "23 24 46 47 49 50 60 70 71 80 81 138 139 164 165 170 171 184 185 199 200 201 202 203 204 "
    "205 206 208 209 210 211 213 214 215 216",
}

KIND_CLASS: Mapping[str, str] = {
    **{kind: name for name, kinds in _CLASS_KINDS.items() for kind in kinds.split()},
    **{f"SYSCALL_{number}": name for name, numbers in _CLASS_SYSCALLS.items() for number in numbers.split()},
}
"""Event kind (DARPA CDM name, without ``EVENT_``) -> one of ``EVENT_CLASSES``; kinds not listed are ``other``."""


def event_class_of(kind: str) -> int:
    """Index into ``EVENT_CLASSES`` of an event kind; kinds not in ``KIND_CLASS`` are ``other``.

    Example:
        >>> EVENT_CLASSES[event_class_of("MPROTECT")], EVENT_CLASSES[event_class_of("NOVEL")]
        ('memory', 'other')
    """
    return EVENT_CLASSES.index(KIND_CLASS.get(kind, "other"))


@dataclass(frozen=True, eq=False)
class EventTable:
    """Events, one a row, in file order.

    Strings are never null (missing: ``""``), ``time_ns`` (ns since any epoch; 0: not known), ``subject`` and ``kind``
    are always there, ``label`` is 1 malicious, 0 benign or -1 unknown. Attribute columns of the source keep their
    names; numbers are int64 or float64 (missing or not finite: null), truth values are booleans.

    Build one with ``EventTable.of(frame)``, which brings a frame into this form; the constructor only checks it.

    Raises:
        DataError: a required column is missing, or a value is outside its range.

    Example:
        >>> columns = {"time_ns": [2, 1], "subject": ["p", "p"], "kind": ["EVENT_READ", "OPEN"]}
        >>> table = EventTable.of(pl.DataFrame(columns))
        >>> table.in_time_order().frame["kind"].to_list()
        ['OPEN', 'READ']
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        columns = self.frame.columns
        missing = [name for name in REQUIRED_COLUMNS if name not in columns]
        if missing:
            raise DataError(
                f"event table without column {missing[0]!r}; it has: {', '.join(columns) or 'none'}. "
                "Run 'phalanx ingest', with --map if the source names its columns otherwise"
            )
        for name, dtype in CONTRACT_COLUMNS.items():
            if name in columns and self.frame.schema[name] != dtype:
                raise DataError(
                    f"column {name!r} of the event table is {self.frame.schema[name]}; expected {dtype}. "
                    "Use EventTable.of(frame), which converts"
                )
            if name in columns and self.frame[name].null_count():
                raise DataError(
                    f"column {name!r} of the event table has missing values. Use EventTable.of(frame)"
                )
        for name in ("subject", "kind"):
            empty = self.frame[name].eq("").arg_max() if self.frame.height else None
            if empty is not None and self.frame[name][empty] == "":
                raise DataError(f"empty {name!r} at row {empty} of the event table; every event needs one")
        if "label" in columns and not self.frame["label"].is_in([-1, 0, 1]).all():
            row = int((~self.frame["label"].is_in([-1, 0, 1])).arg_max() or 0)
            raise DataError(
                f"label={self.frame['label'][row]} at row {row} of the event table; expected 0, 1 or -1. Pass --map"
            )

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "EventTable":
        """Brings a frame into the table's form: types, missing values, no ``EVENT_`` prefix, contract columns first.

        Raises:
            DataError: a contract column holds a value that its type cannot hold.
        """
        try:
            frame = frame.with_columns(
                [
                    pl.col(name).cast(dtype)
                    for name, dtype in CONTRACT_COLUMNS.items()
                    if name in frame.columns
                ]
            )
        except pl.exceptions.PolarsError as problem:
            reason = str(problem).splitlines()[0]
            raise DataError(f"event table with a value of the wrong type: {reason}. Pass --map") from problem
        frame = frame.with_columns(*[_normal(frame[name]) for name in frame.columns])
        if "kind" in frame.columns:
            frame = frame.with_columns(pl.col("kind").str.strip_prefix("EVENT_"))
        if "label" in frame.columns:
            frame = frame.with_columns(pl.col("label").fill_null(-1))
        contract = [name for name in CONTRACT_COLUMNS if name in frame.columns]
        return cls(frame.select(*contract, *[name for name in frame.columns if name not in CONTRACT_COLUMNS]))

    @classmethod
    def read(cls, path: str | Path) -> "EventTable":
        """Reads a table that ``write`` wrote (Parquet, Arrow, CSV or NDJSON).

        Raises:
            DataError: the file is not an event table, or some of its rows are bad (``read_events`` sets them aside).
        """
        from phalanx.data.files import load_frame
        from phalanx.data.rows import ROW

        loaded = load_frame(Path(path))
        if loaded.rejects:
            first = loaded.rejects[0]
            raise DataError(f"{path}: row {first.row}: {first.reason}. 'phalanx ingest' sets bad rows aside")
        return cls.of(loaded.frame.drop(ROW, strict=False))

    def write(self, path: str | Path) -> None:
        """Writes the table whole or not at all; the suffix names the format.

        ``.parquet``, ``.arrow``, ``.feather``, ``.ipc``, ``.csv``, ``.ndjson``, ``.jsonl``; the last three
        also with ``.gz``.
        """
        from phalanx.data.files import write_frame

        write_frame(self.frame, Path(path))

    def __len__(self) -> int:
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return self.frame.columns

    @property
    def labels(self) -> Int8[np.ndarray, " event"]:
        """1 malicious, 0 benign, -1 unknown (everywhere, where the table has no labels)."""
        if "label" not in self.columns:
            return np.full(len(self), -1, np.int8)
        return self.frame["label"].to_numpy()

    @property
    def time_ns(self) -> Int64[np.ndarray, " event"]:
        """Times, in ns; 0 where the source has none for the row."""
        return self.frame["time_ns"].to_numpy()

    @property
    def timed(self) -> Bool[np.ndarray, " event"]:
        """Which rows have a time: not those with time 0 in a table whose other rows have one.

        Where only the first rows are at 0 and the others close to it, the clock starts there: all rows are timed.
        """
        known = self.time_ns != 0
        zeros = len(self) - int(known.sum())
        starts_at_zero = (
            not known[:zeros].any() and np.abs(self.time_ns[zeros:]).min(initial=_EPOCH_NS) < _EPOCH_NS
        )
        return np.ones(len(self), bool) if starts_at_zero else known

    @property
    def order_only(self) -> bool:
        """Whether ``time_ns`` holds positions (each row one more than the last) instead of times."""
        return len(self) > 1 and bool((np.diff(self.time_ns) == 1).all())

    @property
    def has_times(self) -> bool:
        """Whether ``time_ns`` tells when events happened: rows differ in it, and it does not only count them."""
        times = self.time_ns
        return len(self) > 1 and bool(times.min() != times.max()) and not self.order_only

    def strings(self, name: str) -> pl.Series:
        """A contract string column, empty strings where the table does not have it."""
        if name in self.columns:
            return self.frame[name]
        return pl.Series(name, [""], pl.String).new_from_index(0, len(self))

    def take(self, rows: Int[np.ndarray, " row"]) -> "EventTable":
        """The given rows, in the order given."""
        return EventTable(self.frame[np.asarray(rows, np.int64)])

    def in_time_order(self) -> "EventTable":
        """The rows by time, equal times in file order; rows without time (0) come first."""
        return self.take(np.argsort(self.time_ns, kind="stable"))


def _normal(series: pl.Series) -> pl.Series:
    """One column in the table's form; see ``EventTable``."""
    dtype = series.dtype
    if series.name in CONTRACT_COLUMNS:
        return series.fill_null("") if dtype == pl.String else series
    if dtype == pl.Boolean:
        return series
    if dtype.is_temporal():
        nanoseconds = {"Date": pl.Datetime("ns"), "Datetime": pl.Datetime("ns")}.get(str(dtype.base_type()))
        return series.cast(nanoseconds or dtype).to_physical().cast(pl.Int64)
    if dtype.is_integer():
        return series.cast(pl.Float64 if dtype == pl.UInt64 and (series.max() or 0) > 2**63 - 1 else pl.Int64)  # type: ignore[operator]
    if dtype.is_numeric():
        series = series.cast(pl.Float64)
        return series.set(~series.is_finite(), None)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return pl.Series(
            series.name, [None if v is None else str(v) for v in series.to_list()], pl.String
        ).fill_null("")
    return series.cast(pl.String).fill_null("")
