"""Scalars of a TensorBoard folder, read without TensorBoard.

An event file is a row of records: length (uint64), masked CRC-32C of the length, the bytes of an ``Event`` message,
masked CRC-32C of them (TFRecord framing, tensorflow/core/lib/io/record_writer.h).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.errors import DataError, UsageError

__all__ = ["event_files", "scalars_of"]

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_MASK = 0xA282EAD8
_LONGEST = 1 << 30
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}


def event_files(folder: Path) -> list[Path]:
    """The event files of one run, oldest first.

    Raises:
        UsageError: the folder holds several runs.

    Example:
        >>> event_files(Path("/nowhere"))
        []
    """
    files = sorted(folder.rglob("*tfevents*"))
    runs = sorted({file.parent for file in files})
    if len(runs) > 1 and folder not in runs:
        listed = ", ".join(str(run) for run in runs[:5])
        raise UsageError(
            f"{folder}: holds {len(runs)} runs ({listed}{', ...' if len(runs) > 5 else ''}); name one of them"
        )
    return [file for file in files if file.parent == (runs[0] if len(runs) == 1 else folder)]


def scalars_of(files: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of each tag. Where a run was resumed, what an earlier file says of a tag
    from the later one's first step on is replaced.

    Raises:
        DataError: a damaged record, unless the file ends in it.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for file in files:
        of_file: dict[str, dict[int, list[float]]] = {}
        for step, tag, value in _values(file):
            of_file.setdefault(tag, {}).setdefault(step, []).append(value)
        for tag, steps in of_file.items():
            kept = {step: values for step, values in found.get(tag, {}).items() if step < min(steps)}
            found[tag] = kept | steps
    return {
        tag: (
            np.array(sorted(of_tag), np.int64),
            np.array([np.mean(of_tag[step]) for step in sorted(of_tag)]),
        )
        for tag, of_tag in found.items()
    }


def _values(file: Path) -> Iterator[tuple[int, str, float]]:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # made at import

    for record in _records(file):
        event = Event.FromString(record)
        for value in event.summary.value:
            number = _number(value)
            if number is not None:
                yield event.step, value.tag, number


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    tensor = value.tensor
    for field in (tensor.float_val, tensor.double_val, tensor.int_val, tensor.int64_val):
        if len(field) == 1:
            return float(field[0])
    dtype = _DTYPES.get(tensor.dtype)
    if dtype and len(tensor.tensor_content) == np.dtype(dtype).itemsize:
        return float(np.frombuffer(tensor.tensor_content, dtype)[0])
    return None


def _records(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    at = 0
    while at + _HEADER.size <= len(content):
        length, check = _HEADER.unpack_from(content, at)
        if check != _masked(content[at : at + 8]) or length > _LONGEST:
            raise DataError(f"{file}: damaged at byte {at}; copy the file again")
        begin, end = at + _HEADER.size, at + _HEADER.size + length
        if end + _FOOTER.size > len(content):
            return  # the run still writes
        record = content[begin:end]
        if _FOOTER.unpack_from(content, end)[0] != _masked(record):
            raise DataError(f"{file}: damaged at byte {begin}; copy the file again")
        yield record
        at = end + _FOOTER.size


def _masked(data: bytes) -> int:
    from tensorboardX.crc32c import crc32c

    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF
