"""Readers: any source -> event table, rows that cannot be used set aside with the reason.

To add a format, write a module with a ``Reader`` (``matches`` on column names, ``convert`` to the contract's
columns) and put it into ``READERS`` before ``generic``; a new file type is added to ``phalanx.data.files``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.data.events import EventTable
from phalanx.data.files import load_frame
from phalanx.data.readers.adfa import ADFA, TRACE_COLUMNS, join_traces
from phalanx.data.readers.base import Part, Reader, finish
from phalanx.data.readers.darpa import DARPA
from phalanx.data.readers.generic import GENERIC, ColumnMap, convert_generic, read_map
from phalanx.data.readers.nsl_kdd import NSL_KDD
from phalanx.data.readers.phalanx import PHALANX
from phalanx.data.readers.zeek import ZEEK
from phalanx.data.rows import ROW, Reject
from phalanx.errors import DataError, UsageError, one_line, unknown_name
from phalanx.files import atomic_path

__all__ = ["READERS", "IngestReport", "Ingested", "ingest", "read_events", "source_files"]

READERS: Mapping[str, Reader] = {
    reader.name: reader for reader in (PHALANX, DARPA, ADFA, NSL_KDD, ZEEK, GENERIC)
}
"""Formats by name; ``auto`` takes the first whose columns match."""

_FEW = 0.01
"""Share of values that are no numbers up to which a column of text looks like one of numbers."""

_DATA_SUFFIXES = (
    ".parquet",
    ".arrow",
    ".feather",
    ".ipc",
    ".csv",
    ".tsv",
    ".ndjson",
    ".jsonl",
    ".log",
    ".gz",
)


@dataclass(frozen=True)
class Ingested:
    """What was read.

    Attributes:
        table: the good rows of all sources, in the order given.
        rejects: the bad rows.
        notes: what was filled in or decided, and from which source.
        formats: the reader that took each source.
    """

    table: EventTable
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]
    formats: tuple[str, ...]


@dataclass(frozen=True)
class IngestReport:
    """What ``ingest`` wrote.

    Attributes:
        out: file of the event table.
        rows: events in it.
        rejects_file: file of the rejects, ``None`` where no row was bad.
        rejected: rows in it.
        notes: as in ``Ingested``.
        formats: as in ``Ingested``.
    """

    out: Path
    rows: int
    rejects_file: Path | None
    rejected: int
    notes: tuple[str, ...]
    formats: tuple[str, ...]


def read_events(
    sources: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    label: str | None = None,
    mapping: Mapping[str, Any] | str | Path | ColumnMap | None = None,
) -> Ingested:
    """Reads one or more sources into one event table.

    Args:
        sources: files or folders; ADFA-LD's two files may be given together or as their folder.
        format: a name of ``READERS``, or ``auto``.
        label: source column that holds the truth, instead of the reader's own choice.
        mapping: contract column -> source column (a JSON or TOML file or a dictionary); makes ``auto`` read
            ``generic``.

    Raises:
        UsageError: an unknown format.
        DataError: a file that cannot be used as a whole; it names the file, the reason and the remedy.
    """
    if format != "auto" and format not in READERS:
        raise unknown_name("format", format, ["auto", *READERS])
    column_map = read_map(mapping)
    if column_map is not None and format == "auto":
        format = GENERIC.name
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(source) for source in sources]
    parts, rejects = _load(source_files(paths))
    frames, notes, formats, offset = [], [], [], 0
    for part in parts:
        names = set(part.frame.columns)
        reader = (
            READERS[format] if format != "auto" else next(r for r in READERS.values() if r.matches(names))
        )
        if not reader.matches(names):
            listed = ", ".join(name for name in part.frame.columns if name != ROW)
            raise DataError(
                f"{part.source}: not of the format {reader.name!r}; it has: {listed}. Pass --format auto"
            )
        try:
            converted = convert_generic(part, column_map) if reader is GENERIC else reader.convert(part)
            frame, bad, said = finish(converted, label, offset=offset)
            frames.append(EventTable.of(frame).frame)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as problem:
            reason = next(iter(str(problem).splitlines()), type(problem).__name__)
            raise DataError(
                f"{part.source}: has the columns of the format {reader.name!r}, but not its values ({reason}). "
                "Pass --format generic, or mend them"
            ) from problem
        rejects += bad
        notes += [*said, *_misfits(part)]
        formats.append(reader.name)
        offset += part.frame.height
    return Ingested(EventTable.of(_concatenate(frames)), tuple(rejects), tuple(notes), tuple(formats))


def _misfits(part: Part) -> list[str]:
    """Notes on columns of numbers that are read as text because a few values are none.

    No row is set aside for it: user ids, say, are mostly numbers and rarely names, and right as they are.
    """
    notes = []
    for name, dtype in part.frame.schema.items():
        if dtype != pl.String:
            continue
        values = part.frame[name].drop_nulls()
        odd = values.filter(values.cast(pl.Float64, strict=False).is_null())
        if 0 < len(odd) <= _FEW * len(values):
            notes.append(
                f"{one_line(f'{part.source}: column {name}')}: {len(odd)} of {len(values):,} values are no numbers "
                f"(first: {odd[0]!r}), so all are read as text; mend them if they should be numbers"
            )
    return notes


def ingest(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str = "auto",
    label: str | None = None,
    mapping: Mapping[str, Any] | str | Path | ColumnMap | None = None,
) -> IngestReport:
    """Reads sources and writes the event table, and the bad rows to ``<stem>.rejects.jsonl`` beside it.

    Both files appear whole or not at all; a rejects file of an earlier run is removed where no row is bad.

    Raises:
        UsageError: an unknown format, an ``out`` whose suffix names no file type, or one that would write over a
            source.
        DataError: see ``read_events``.
    """
    out = Path(out)
    given = [sources] if isinstance(sources, str | Path) else sources
    stem = Path(out.name.removesuffix(".gz")).stem
    rejects_file = out.with_name(f"{stem}.rejects.jsonl")
    taken = {file.resolve() for file in source_files([Path(source) for source in given])}
    for written in (out, rejects_file):
        if written.resolve() in taken:
            raise UsageError(
                f"--out {out} would write over {written}, one of the sources; name another file, so that the records "
                "stay as they were"
            )
    read = read_events(sources, format=format, label=label, mapping=mapping)
    read.table.write(out)
    if read.rejects:
        with atomic_path(rejects_file) as temporary:
            lines = (json.dumps(asdict(reject), ensure_ascii=False) for reject in read.rejects)
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    else:
        rejects_file.unlink(missing_ok=True)
    written = rejects_file if read.rejects else None
    return IngestReport(out, len(read.table), written, len(read.rejects), read.notes, read.formats)


def source_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are read from sources: folders become their data files, by name.

    Raises:
        DataError: no source, or a folder without a data file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.iterdir()
                if file.is_file()
                and file.suffix in _DATA_SUFFIXES
                and not file.name.endswith(".rejects.jsonl")
            )
            if not inside:
                raise DataError(
                    f"{path}: no data file in this folder; expected one of: {', '.join(_DATA_SUFFIXES)}"
                )
            files += inside
        else:
            files.append(path)
    if not files:
        raise DataError("no source given; name at least one file")
    return files


def _load(paths: Sequence[Path]) -> tuple[list[Part], list[Reject]]:
    """Loads all files and joins ADFA-LD's table of traces with its calls."""
    parts, rejects = [], []
    for path in paths:
        loaded = load_frame(path)
        parts.append(Part(str(path), loaded.frame))
        rejects += loaded.rejects
    traces = [p for p in parts if set(p.frame.columns) >= TRACE_COLUMNS and "syscall" not in p.frame.columns]
    calls = [p for p in parts if ADFA.matches(set(p.frame.columns)) and "attack_type" not in p.frame.columns]
    if len(traces) == 1 and calls:
        parts = [join_traces(traces[0], p) if p in calls else p for p in parts if p is not traces[0]]
    return parts, rejects


def _concatenate(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows, all columns; a column of different types becomes the wider one."""
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
