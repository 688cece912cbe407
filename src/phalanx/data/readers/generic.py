"""Any table, with a map from the contract's columns to its own, or with the names that sources commonly use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.data.events import CONTRACT_COLUMNS
from phalanx.data.readers.base import Converted, Part, Reader, time_column
from phalanx.data.rows import ROW
from phalanx.errors import DataError
from phalanx.files import read_structured

__all__ = ["GENERIC", "ColumnMap", "convert_generic", "read_map"]

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "time_ns": ("time_ns", "timestamp_ns", "timestamp", "@timestamp", "ts", "time", "datetime", "event_time"),
    "host": ("host", "hostname", "hostName", "host_id", "computer", "Computer"),
    "subject": (
        "subject",
        "subject_uuid",
        "process_uuid",
        "process_guid",
        "ProcessGuid",
        "processId",
        "process_id",
        "pid",
    ),
    "parent": ("parent", "parent_uuid", "ParentProcessGuid", "parentProcessId", "parent_process_id", "ppid"),
    "kind": ("kind", "event_type", "eventName", "event_name", "eventType", "action", "syscall", "event"),
    "object": ("object", "object_uuid"),
    "object_kind": ("object_kind", "object_type"),
    "path": ("path", "file_path", "filePath", "filename", "TargetFilename"),
    "command": ("command", "command_line", "commandLine", "cmdline", "processName", "process_name"),
    "label": ("label",),
    "campaign": ("campaign",),
    "stage": ("stage",),
}


@dataclass(frozen=True)
class ColumnMap:
    """How a source names things.

    Attributes:
        columns: contract column -> source column.
        label_values: value of the label column -> 1, 0 or -1; ``"*"`` stands for all others.
        time_unit: s, ms, us, ns or iso; ``None``: by size.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label_values: Mapping[str, int] = field(default_factory=dict)
    time_unit: str | None = None


def read_map(mapping: Mapping[str, Any] | str | Path | ColumnMap | None) -> ColumnMap | None:
    """A map from a JSON or TOML file or a dictionary.

    Contract columns stand at the top level or under ``columns``; beside them ``label_values`` and ``time_unit``.

    Raises:
        DataError: the file cannot be read, or the map names something that is no contract column.

    Example:
        >>> read_map({"subject": "pid", "label": "evil", "label_values": {"yes": 1}}).columns["subject"]
        'pid'
    """
    if mapping is None or isinstance(mapping, ColumnMap):
        return mapping
    place = "the map"
    if isinstance(mapping, str | Path):
        place = str(mapping)
        mapping = read_structured(Path(mapping), "map")
    if not isinstance(mapping, Mapping):
        raise DataError(
            f"{place}: a {type(mapping).__name__}; expected an object of contract column -> source column"
        )
    given = dict(mapping)
    values, unit = given.pop("label_values", {}), given.pop("time_unit", None)
    columns = {**given.pop("columns", {}), **given}
    for name, source in columns.items():
        if name not in CONTRACT_COLUMNS:
            raise DataError(
                f"{place}: {name!r} is no column of the event table; choose of: {', '.join(CONTRACT_COLUMNS)}, "
                "label_values, time_unit"
            )
        if not isinstance(source, str):
            raise DataError(f"{place}: {name!r} maps to {source!r}; expected the name of a source column")
    if not isinstance(values, Mapping) or any(value not in (0, 1, -1) for value in values.values()):
        raise DataError(f"{place}: label_values={values!r}; expected value -> 1, 0 or -1")
    return ColumnMap(columns, {str(word): int(value) for word, value in values.items()}, unit)


def convert_generic(part: Part, column_map: ColumnMap | None = None) -> Converted:
    """Columns by the map first, then by common names; the source's columns stay beside them."""
    column_map = column_map or ColumnMap()
    frame, names = part.frame, set(part.frame.columns)
    for name, source in column_map.columns.items():
        if source not in names:
            listed = ", ".join(column for column in frame.columns if column != ROW)
            raise DataError(
                f"{part.source}: the map takes {name!r} from {source!r}; the file has: {listed}. Correct --map"
            )
    chosen = dict(column_map.columns)
    guessed = {}
    for name, aliases in _ALIASES.items():
        alias = next((alias for alias in aliases if alias in names), None)
        if name not in chosen and alias is not None:
            chosen[name] = alias
            if alias != name:
                guessed[name] = alias
    notes = [f"{name} is taken from column {alias!r}" for name, alias in guessed.items()]
    bad = None
    label = chosen.pop("label", None)
    time_source = chosen.pop("time_ns", None)
    columns = [pl.col(source).cast(pl.String).alias(name) for name, source in chosen.items()]
    if time_source is not None:
        unit = column_map.time_unit or ("ns" if time_source in ("time_ns", "timestamp_ns") else None)
        times, missing, used = time_column(frame[time_source], unit)
        shown = frame[time_source].cast(pl.String).fill_null("")
        text = pl.lit(f"time {time_source}=" + shown + "; expected a number or an ISO 8601 time")
        bad = pl.select(
            pl.when(missing & (shown.str.strip_chars() != "")).then(text).otherwise(None).cast(pl.String)
        ).to_series()
        columns.append(pl.lit(times).alias("time_ns"))
        notes.append(f"time_ns is taken from column {time_source!r}, read as {used}")
    frame = frame.with_columns(columns)
    return Converted(part.source, frame, label, {"*": column_map.label_values}, tuple(notes), bad)


GENERIC = Reader("generic", lambda columns: True, convert_generic)
