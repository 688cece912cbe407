"""Files of rows: what kind a file is, loading it with its bad rows set aside, writing it whole or not at all."""

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.errors import DataError, UsageError

__all__ = ["ROW", "Loaded", "Reject", "atomic_path", "load_frame", "read_bytes", "sniff_type", "write_frame"]

ROW = "__row__"
"""Name of the column that carries a record's number in its source (from 1, header not counted) while it is read."""

_RAW_LIMIT = 2000
_TEXT_TYPES = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson"}
_BINARY_TYPES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


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


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it is gzipped.

    Raises:
        DataError: the file is missing, empty, a folder or a damaged archive.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Check the path")
    if path.is_dir():
        raise DataError(f"{path}: a folder; expected a file, or the folder of an ADFA-LD data set")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as problem:
            raise DataError(f"{path}: damaged gzip archive ({problem}). Fetch it again") from problem
    if not content.strip():
        raise DataError(f"{path}: the file is empty. Check that it was written to its end")
    return content


def sniff_type(path: Path, content: bytes) -> str:
    """``parquet``, ``arrow``, ``zeek``, ``ndjson`` or ``csv``, from the content; the suffix must not contradict it.

    Raises:
        DataError: the content is not what the suffix says, or no table at all.
    """
    magic = {b"PAR1": "parquet", b"ARROW1": "arrow"}
    found = next((kind for mark, kind in magic.items() if content.startswith(mark)), None)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    claimed = _BINARY_TYPES.get(suffix)
    if found:
        return found
    if claimed:
        what = "text" if _is_text(content[:4096]) else "something else"
        raise DataError(
            f"{path}: not a {claimed} file although its name says so; it holds {what}. "
            f"Rename it to what it is, or fetch it again"
        )
    if not _is_text(content[:65536]):
        raise DataError(
            f"{path}: binary content in a text file. Expected CSV, NDJSON, Zeek logs, Parquet or Arrow; fetch it again"
        )
    start = content.lstrip()[:200]
    if start.startswith((b"#separator", b"#fields")):
        return "zeek"
    if start.startswith(b"["):
        raise DataError(f"{path}: one JSON array; expected one object a line. Convert it with: jq -c '.[]'")
    return "ndjson" if start.startswith(b"{") or _TEXT_TYPES.get(suffix) == "ndjson" else "csv"


def _is_text(start: bytes) -> bool:
    """Whether bytes look like text: no NUL and few control characters."""
    controls = sum(byte < 9 or 13 < byte < 32 for byte in start)
    return b"\0" not in start and controls <= len(start) // 100


def load_frame(path: Path) -> Loaded:
    """Loads a table of any known file type.

    Raises:
        DataError: the file as a whole cannot be used; bad rows are set aside instead.
    """
    content = read_bytes(path)
    return _LOADERS[sniff_type(path, content)](path, content)


def _load_binary(read: Callable[[io.BytesIO], pl.DataFrame], name: str) -> Callable[[Path, bytes], Loaded]:
    def load(path: Path, content: bytes) -> Loaded:
        try:
            frame = read(io.BytesIO(content))
        except Exception as problem:  # polars raises many kinds, some not its own, on damaged files
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise DataError(f"{path}: damaged {name} file ({reason}). Write or fetch it again") from problem
        if frame.height == 0:
            raise DataError(f"{path}: the {name} file has no rows. Check that it was written to its end")
        return Loaded(frame)

    return load


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


def _printable(raw: str) -> str:
    return raw.rstrip("\r\n").encode("utf-8", errors="backslashreplace").decode()[:_RAW_LIMIT]


def _load_csv(path: Path, content: bytes) -> Loaded:
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
    header = next(reader)
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
    frame = pl.read_csv(
        io.BytesIO("".join(good).encode()),
        separator=separator,
        infer_schema_length=None,
        schema_overrides={name: pl.String for name in _text_columns(header, good[1], separator)},
    )
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


def _load_ndjson(path: Path, content: bytes) -> Loaded:
    """One JSON object a line."""
    text, _ = _decode(path, content)
    rows: list[dict[str, Any]] = []
    numbers, rejects = [], []
    for line in text.split("\n"):
        if not line.strip():
            continue
        row = len(numbers) + len(rejects) + 1
        reason = _reason_bytes(line)
        value: Any = None
        if not reason:
            try:
                value = json.loads(line)
                reason = (
                    None if isinstance(value, dict) else f"a JSON {type(value).__name__}; expected an object"
                )
            except (json.JSONDecodeError, RecursionError) as problem:
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


def _load_zeek(path: Path, content: bytes) -> Loaded:
    """A Zeek TSV log: ``#separator``, ``#fields`` and ``#types`` lines, then rows.

    Some labelled logs write the last fields with spaces instead of the separator; they are split too.
    """
    text, _ = _decode(path, content)
    separator, unset, empty = "\t", "-", "(empty)"
    names: list[str] = []
    types: list[str] = []
    rows: list[list[str]] = []
    numbers, rejects = [], []
    for line in text.splitlines():
        if line.startswith("#"):
            tag, _, rest = line.partition(" " if line.startswith("#separator") else separator)
            if tag == "#separator":
                separator = rest.encode().decode("unicode_escape")
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
    types = types if len(types) == len(names) else ["string"] * len(names)
    frame = pl.DataFrame(
        [
            _zeek_column(name, kind, [None if value in (unset, empty) else value for value in values])
            for name, kind, values in zip(names, types, zip(*rows, strict=True), strict=True)
        ]
    )
    return Loaded(frame.with_columns(pl.Series(ROW, numbers, pl.Int64)), tuple(rejects))


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


_LOADERS: dict[str, Callable[[Path, bytes], Loaded]] = {
    "parquet": _load_binary(pl.read_parquet, "Parquet"),
    "arrow": _load_binary(lambda source: pl.read_ipc(source), "Arrow"),
    "zeek": _load_zeek,
    "ndjson": _load_ndjson,
    "csv": _load_csv,
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file next to ``path`` that takes its place when the block ends well, and is removed when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table whole or not at all; the suffix names the format.

    Raises:
        UsageError: a suffix that names no format.
    """
    packed = path.suffix == ".gz"
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    kind = _BINARY_TYPES.get(suffix) or {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}.get(suffix)
    if kind is None or (packed and suffix in _BINARY_TYPES):
        choices = ".parquet, .arrow, .feather, .ipc, .csv, .ndjson, .jsonl, .csv.gz, .ndjson.gz, .jsonl.gz"
        raise UsageError(f"cannot write a table as {path.name!r}; the suffix names the format: {choices}")
    with atomic_path(path) as temporary:
        if kind == "parquet":
            frame.write_parquet(temporary)
        elif kind == "arrow":
            frame.write_ipc(temporary)
        else:
            text = frame.write_csv(quote_style="non_numeric") if kind == "csv" else frame.write_ndjson()
            content = text.encode()
            temporary.write_bytes(gzip.compress(content, mtime=0) if packed else content)
