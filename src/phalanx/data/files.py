"""Files of rows: what kind a file is, loading it with its bad rows set aside, writing it whole or not at all."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.data.rows import Loaded
from phalanx.data.sinks import write_frames
from phalanx.data.text_files import load_csv, load_ndjson, load_zeek
from phalanx.errors import DataError

__all__ = ["load_frame", "read_bytes", "sniff_type", "write_frame"]

_TEXT_TYPES = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson"}
_BINARY_TYPES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


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
        except (OSError, EOFError, zlib.error) as problem:
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
    return b"\0" not in start and controls <= len(start) // 20


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
        except (Exception, pl.exceptions.PanicException) as problem:  # damaged files raise kinds of all sorts
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise DataError(f"{path}: damaged {name} file ({reason}). Write or fetch it again") from problem
        if frame.height == 0:
            raise DataError(f"{path}: the {name} file has no rows. Check that it was written to its end")
        return Loaded(frame)

    return load


# Both by Arrow: where a damaged file asks for more memory than there is, the readers of polars end the process.


def _read_parquet(source: io.BytesIO) -> pl.DataFrame:
    from pyarrow.parquet import ParquetFile

    return _polars(ParquetFile(source).read())


def _read_arrow(source: io.BytesIO) -> pl.DataFrame:
    from pyarrow.ipc import open_file

    table = open_file(source).read_all()
    table.validate(full=True)  # nothing else looks at the offsets that a file states
    return _polars(table)


def _polars(table: Any) -> pl.DataFrame:
    if any("\0" in name for name in table.column_names):  # which raises where a name is not UTF-8
        raise ValueError("a column's name holds a NUL character")
    frame = pl.from_arrow(table.replace_schema_metadata(None))
    assert isinstance(frame, pl.DataFrame)
    return frame


_LOADERS: dict[str, Callable[[Path, bytes], Loaded]] = {
    "parquet": _load_binary(_read_parquet, "Parquet"),
    "arrow": _load_binary(_read_arrow, "Arrow"),
    "zeek": load_zeek,
    "ndjson": load_ndjson,
    "csv": load_csv,
}


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table whole or not at all; the suffix names the format.

    Raises:
        UsageError: a suffix that names no format.
    """
    write_frames((frame,), path)
