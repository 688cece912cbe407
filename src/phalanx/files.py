"""Files that are whole or absent, and JSON that every reader accepts."""

import dataclasses
import enum
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.errors import DataError

__all__ = [
    "atomic_path",
    "is_temporary",
    "json_safe",
    "read_structured",
    "to_json",
    "write_bytes",
    "write_json",
    "write_text",
]

_PREFIX, _SUFFIX = ".", ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lends a temporary path beside ``path`` that takes its place, synced to disk, when the block ends well.

    Whoever reads ``path`` meanwhile, or after a kill, finds the old file or the new one, never a part. The folder is
    created where it is missing; after an exception (an interrupt too) the temporary file is deleted.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "table.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PREFIX}{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed ``atomic_path`` left behind.

    Example:
        >>> is_temporary(Path("runs/a/.config.json.41.tmp")), is_temporary(Path("runs/a/config.json"))
        (True, False)
    """
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically (see ``atomic_path``)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a text file in UTF-8 atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file for people and programs, atomically."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_structured(path: Path, what: str = "file") -> Any:
    """What a file of TOML (by its suffix) or JSON holds.

    Args:
        path: the file.
        what: it is, for the error.

    Raises:
        DataError: it cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as problem:
        raise DataError(f"{path}: cannot read the {what} ({problem.strerror}). Check the path") from problem
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: not a JSON or TOML {what} ({problem}). Correct it") from problem


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text of a value (see ``json_safe``), on one line unless indented.

    Example:
        >>> to_json({"loss/value": float("inf"), "tp": np.int64(3)})
        '{"loss/value": null, "tp": 3}'
    """
    return json.dumps(json_safe(value), indent=indent, allow_nan=False, ensure_ascii=False)


def json_safe(value: Any) -> Any:
    """The value in JSON's own types: numbers that are not finite become null, paths and enums text, arrays lists.

    Raises:
        TypeError: for anything JSON has no form for.
    """
    if isinstance(value, enum.Enum):
        return json_safe(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_safe(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
        return json_safe(np.asarray(value).tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
