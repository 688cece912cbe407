"""Tables that go into a file part by part, so that none has to fit in memory; the file is whole or absent."""

import gzip
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from phalanx.errors import UsageError
from phalanx.files import atomic_path

__all__ = ["write_frames"]


def write_frames(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Writes the parts of a table, each as it comes, in the format that the suffix names (as ``write_frame``).

    Args:
        frames: at least one, all with the same columns; each makes a row group or record batch of its own.
        path: of the file.

    Raises:
        UsageError: a suffix that names no format; no part has been asked for then.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.csv"
        >>> write_frames((pl.DataFrame({"n": [n]}) for n in range(3)), path)
        >>> path.read_text().split()
        ['"n"', '0', '1', '2']
    """
    sink, parts = _sink(path), iter(frames)
    first = next(parts)
    with atomic_path(path) as temporary, sink(temporary, first) as write:
        for frame in chain((first,), parts):
            write(frame)


_Write = Callable[[pl.DataFrame], Any]
_Sink = Callable[[Path, pl.DataFrame], AbstractContextManager[_Write]]


@contextmanager
def _parquet(path: Path, first: pl.DataFrame) -> Iterator[_Write]:
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(path, first.to_arrow().schema, compression="zstd") as writer:
        yield lambda frame: writer.write_table(frame.to_arrow())


@contextmanager
def _arrow(path: Path, first: pl.DataFrame) -> Iterator[_Write]:
    from pyarrow.ipc import new_file

    with new_file(path, first.to_arrow().schema) as writer:
        yield lambda frame: writer.write_table(frame.to_arrow())


def _text(append: Callable[[pl.DataFrame, Any, bool], Any], packed: bool) -> _Sink:
    """A sink of text; ``append`` is told whether the rows are the file's first."""

    @contextmanager
    def sink(path: Path, first: pl.DataFrame) -> Iterator[_Write]:
        # neither name nor time goes into the archive: the same seed makes the same bytes
        with path.open("wb") as raw, _packed(raw) if packed else nullcontext(raw) as file:
            yield lambda frame: append(frame, file, frame is first)

    return sink


def _packed(raw: Any) -> Any:
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)


def _csv(frame: pl.DataFrame, file: Any, first: bool) -> None:
    frame.write_csv(file, include_header=first, quote_style="non_numeric")


def _ndjson(frame: pl.DataFrame, file: Any, first: bool) -> None:
    frame.write_ndjson(file)


_SINKS: dict[str, _Sink] = {
    **dict.fromkeys((".parquet", ".pq"), _parquet),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), _arrow),
    **{
        f"{suffix}{packing}": _text(append, bool(packing))
        for suffix, append in ((".csv", _csv), (".ndjson", _ndjson), (".jsonl", _ndjson))
        for packing in ("", ".gz")
    },
}


def _sink(path: Path) -> _Sink:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    found = "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])
    if found not in _SINKS:
        raise UsageError(
            f"cannot write a table as {path.name!r}; the suffix names the format: {', '.join(_SINKS)}"
        )
    return _SINKS[found]
