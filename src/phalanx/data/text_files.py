"""Text files of rows: CSV, NDJSON and Zeek logs, each bad row set aside with the reason."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.data.rows import RAW_LIMIT, ROW, Loaded, Reject
from phalanx.errors import DataError

__all__ = ["load_csv", "load_ndjson", "load_zeek"]

_SPACE = " \t\r"  # of JSON: a line of other white space is a bad row, not a blank one


def _decode(path: Path, content: bytes) -> tuple[str, bool]:
    """The text of a file and whether all of it is UTF-8; stray bytes become surrogates, to be rejected by row."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8"), True
    except UnicodeDecodeError:
        return content.decode("utf-8", errors="surrogateescape"), False


def _reason_bytes(text: str) -> str | None:
    """Why a text row cannot be kept for its bytes, if so."""
    if "\0" in text:
        return "NUL byte in the row; expected text"
    if not text.isascii() and any("\udc80" <= mark <= "\udcff" for mark in text):
        return "bytes that are not UTF-8; expected UTF-8 text"
    return None


def _reason_object(value: Any) -> str | None:
    """Why a JSON value is no row, if so."""
    if not isinstance(value, dict):
        return f"a JSON {type(value).__name__}; expected an object"
    if any("\0" in name or any("\ud800" <= mark <= "\udfff" for mark in name) for name in value):
        return "a name with a NUL character or half a character; expected names of text"
    return None


def _printable(raw: str) -> str:
    return raw.rstrip("\r\n").encode("utf-8", errors="backslashreplace").decode()[:RAW_LIMIT]


def load_csv(path: Path, content: bytes) -> Loaded:
    """CSV with a header; the separator is the most frequent of , tab ; | in it."""
    text, _ = _decode(path, content)
    consumed: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            consumed.append(line)
            yield line

    header_line = text.split("\n", 1)[0]
    separator = max(",\t;|", key=header_line.count)
    reader = csv.reader(lines(), delimiter=separator)
    csv.field_size_limit(1 << 24)
    try:
        header = next(reader, [])
    except csv.Error as problem:
        raise DataError(
            f"{path}: the header is not CSV ({problem}). Name each column in the first line"
        ) from problem
    flaw = _reason_bytes("".join(consumed)) or (None if header else "no column is named")
    if flaw:
        raise DataError(f"{path}: the header: {flaw}. Name each column in the first line")
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise DataError(f"{path}: column {duplicates[0]!r} occurs twice in the header. Rename one")
    good, numbers, rejects = ["".join(consumed)], [], []
    row = 0
    while True:
        consumed.clear()
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as problem:
            record, reason = None, f"not CSV: {problem}"
        else:
            reason = None
        raw = "".join(consumed)
        if record is not None and not record:
            continue  # a blank line is no record
        row += 1
        if record is not None and len(record) != len(header):
            reason = f"{len(record)} fields; expected {len(header)} as in the header"
        reason = reason or _reason_bytes(raw)
        if reason:
            rejects.append(Reject(str(path), row, reason, _printable(raw)))
        else:
            good.append(raw if raw.endswith("\n") else raw + "\n")
            numbers.append(row)
    if not numbers:
        raise DataError(_no_rows(path, "CSV", rejects))
    try:
        frame = pl.read_csv(
            io.BytesIO("".join(good).encode()),
            separator=separator,
            infer_schema_length=None,
            schema_overrides={name: pl.String for name in _text_columns(header, good[1], separator)},
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as problem:
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise DataError(f"{path}: cannot be read as CSV ({reason}). Quote its fields properly") from problem
    if frame.height != len(numbers):
        raise DataError(
            f"{path}: the CSV reads as {frame.height} or {len(numbers)} rows. Quote its fields properly"
        )
    return Loaded(frame.with_columns(pl.Series(ROW, numbers, pl.Int64)), tuple(rejects))


def _text_columns(header: list[str], record: str, separator: str) -> list[str]:
    """Columns that hold text although they may look like numbers: quoted in a record whose numbers are not.

    ``write_frame`` quotes text and truth values only, so that its files read back with the types they had.
    """
    quoted, inside, start = [], False, True
    for mark in record:
        if start:
            quoted.append(mark == '"')
        start = mark == separator and not inside
        inside ^= mark == '"'
    if all(quoted):
        return []
    values = next(csv.reader([record], delimiter=separator))
    return [
        name
        for name, is_quoted, value in zip(header, quoted, values, strict=False)
        if is_quoted and value not in ("true", "false")
    ]


def load_ndjson(path: Path, content: bytes) -> Loaded:
    """One JSON object a line."""
    text, is_utf8 = _decode(path, content)
    frame = _clean_ndjson(text) if is_utf8 else None
    if frame is not None:
        return Loaded(frame)
    rows: list[dict[str, Any]] = []
    numbers, rejects = [], []
    for line in text.split("\n"):
        if not line.strip(_SPACE):
            continue
        row = len(numbers) + len(rejects) + 1
        reason = _reason_bytes(line)
        value: Any = None
        if not reason:
            try:
                value = json.loads(line)
                reason = _reason_object(value)
            except (ValueError, RecursionError) as problem:
                reason = f"not JSON: {problem}"
        if reason:
            rejects.append(Reject(str(path), row, reason, _printable(line)))
        else:
            rows.append(value)
            numbers.append(row)
    if not numbers:
        raise DataError(_no_rows(path, "NDJSON", rejects))
    names = list(dict.fromkeys(name for value in rows for name in value))
    if not names:
        raise DataError(f"{path}: objects without a single field. Expected event attributes")
    frame = pl.DataFrame([_json_column(name, [value.get(name) for value in rows]) for name in names])
    return Loaded(frame.with_columns(pl.Series(ROW, numbers, pl.Int64)), tuple(rejects))


def _clean_ndjson(text: str) -> pl.DataFrame | None:
    """The fast way, for a file without a bad row or a nested value; ``None`` where the slow way must look closer.

    The two differ only where one column mixes text with numbers: whole floats then read as ``1`` instead of ``1.0``.
    """
    lines = [line for line in text.split("\n") if line.strip(_SPACE)]
    if "\0" in text or not all(line.lstrip(_SPACE).startswith("{") for line in lines):
        return None
    try:
        frame = pl.read_ndjson(text.encode(), infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError):
        return None
    plain = all(dtype in (pl.Int64, pl.Float64, pl.Boolean, pl.String) for dtype in frame.dtypes)
    if not plain or not frame.width or frame.height != len(lines) or "\0" in "".join(frame.columns):
        return None
    return frame.with_columns(pl.int_range(1, frame.height + 1, dtype=pl.Int64).alias(ROW))


def _json_column(name: str, values: list[Any]) -> pl.Series:
    """A column of the narrowest type that holds all JSON values: boolean, int64, float64 or text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pl.Series(name, values, pl.Boolean)
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values, pl.Int64)
    if kinds and kinds <= {int, float}:
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    text = [value if isinstance(value, str | None) else json.dumps(value) for value in values]
    text = [value and value.encode("utf-8", errors="backslashreplace").decode() for value in text]
    return pl.Series(name, text, pl.String)


def _no_rows(path: Path, what: str, rejects: list[Reject]) -> str:
    if rejects:
        first = rejects[0]
        return (
            f"{path}: none of its {len(rejects)} rows can be read as {what}; row {first.row}: {first.reason}"
        )
    return f"{path}: a {what} header without rows. Check that the file was written to its end"


def load_zeek(path: Path, content: bytes) -> Loaded:
    """A Zeek TSV log: ``#separator``, ``#fields`` and ``#types`` lines, then rows.

    Some labelled logs write the last fields with spaces instead of the separator; they are split too.
    """
    text, _ = _decode(path, content)
    separator, unset, empty = "\t", "-", "(empty)"
    names: list[str] = []
    types: list[str] = []
    rows: list[list[str]] = []
    numbers, rejects = [], []
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        if line.startswith("#"):
            tag, _, rest = line.partition(" " if line.startswith("#separator") else separator)
            if tag == "#separator":
                separator = _zeek_separator(path, rest)
            elif tag == "#unset_field":
                unset = rest
            elif tag == "#empty_field":
                empty = rest
            elif tag == "#fields":
                names = _zeek_fields(rest, separator)
            elif tag == "#types":
                types = _zeek_fields(rest, separator)
            continue
        if not line.strip():
            continue
        if not names:
            raise DataError(f"{path}: Zeek log without a #fields line before its rows. Keep the header")
        row = len(numbers) + len(rejects) + 1
        fields = _zeek_fields(line, separator)
        reason = _reason_bytes(line)
        if len(fields) != len(names):
            reason = f"{len(fields)} fields; expected {len(names)} as in #fields"
        if reason:
            rejects.append(Reject(str(path), row, reason, _printable(line)))
        else:
            rows.append(fields)
            numbers.append(row)
    if not rows:
        raise DataError(_no_rows(path, "Zeek log", rejects))
    if flaw := _reason_bytes("".join((*names, unset, empty))):
        raise DataError(f"{path}: the header: {flaw}. Keep the header as Zeek wrote it")
    types = types if len(types) == len(names) else ["string"] * len(names)
    frame = pl.DataFrame(
        [
            _zeek_column(name, kind, [None if value in (unset, empty) else value for value in values])
            for name, kind, values in zip(names, types, zip(*rows, strict=True), strict=True)
        ]
    )
    return Loaded(frame.with_columns(pl.Series(ROW, numbers, pl.Int64)), tuple(rejects))


def _zeek_separator(path: Path, written: str) -> str:
    try:
        separator = written.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        separator = ""
    if len(separator) != 1:
        raise DataError(f"{path}: #separator {ascii(written)[:40]}; expected one character, such as \\x09")
    return separator


def _zeek_fields(line: str, separator: str) -> list[str]:
    return [
        part
        for field in line.split(separator)
        for part in (field.split("   ") if "   " in field else [field])
    ]


def _zeek_column(name: str, kind: str, values: list[str | None]) -> pl.Series:
    """A column by its Zeek type; ``ts`` stays text so that a bad time can be rejected by row."""
    series = pl.Series(name, values, pl.String)
    if kind in ("count", "int", "port"):
        return series.cast(pl.Int64, strict=False)
    if kind in ("double", "interval"):
        return series.cast(pl.Float64, strict=False)
    if kind == "bool":
        return series.replace_strict({"T": True, "F": False}, default=None, return_dtype=pl.Boolean)
    return series
