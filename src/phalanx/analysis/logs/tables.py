"""Rows of a log file: CSV, or JSON objects one a line, nested ones flattened. The last line may be torn."""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phalanx.errors import DataError

__all__ = ["rows_of"]

_LONGEST_CELL = 1 << 26
_NOT_FINITE = ("NaN", "nan", "inf", "-inf", "Infinity", "-Infinity")


def rows_of(path: Path) -> list[dict[str, float]]:
    """The numbers of each row by column; what is no number is left out.

    Null in a JSON log is NaN: a tool that writes strict JSON has no other way to say so.

    Raises:
        DataError: a file without rows, or a line that is no row, unless it is the last.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read as text ({problem})") from problem
    try:
        rows = _json_rows(path, text) if text.lstrip()[:1] == "{" else _csv_rows(path, text)
    except (csv.Error, RecursionError) as problem:
        raise DataError(f"{path}: no table of numbers ({problem}); expected a training log") from None
    if not any(rows):
        raise DataError(
            f"{path}: no row with a number. Expected a training log: CSV with a header, or a JSON object a line"
        )
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, float]]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = []
    for number, line in lines:
        try:
            found = json.loads(line)
        except json.JSONDecodeError as problem:
            if number == lines[-1][0] and not text.endswith("\n"):
                break
            raise DataError(
                f"{path}: line {number} is no JSON object ({problem.msg}); mend or drop the line"
            ) from None
        if not isinstance(found, dict):
            raise DataError(f"{path}: line {number} is no JSON object; expected one object a line")
        rows.append(_flat(found))
    return rows


def _flat(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    row: dict[str, float] = {}
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            row |= _flat(value, f"{name}/")
        elif value is None:
            row[name] = math.nan
        elif (isinstance(value, int | float) and not isinstance(value, bool)) or value in _NOT_FINITE:
            row[name] = _number(value)
    return row


def _number(value: int | float | str) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return -math.inf if str(value).startswith("-") else math.inf


def _csv_rows(path: Path, text: str) -> list[dict[str, float]]:
    """Without the last line where it has no end: what it holds may be half a number."""
    lines = text.split("\n")
    if len(lines) > 2 and lines[-1].strip():
        lines.pop()
    csv.field_size_limit(_LONGEST_CELL)
    cells = [row for row in csv.reader(lines) if row]
    header = [name.strip() for name in cells[0]] if cells else []
    rows = []
    for number, row in enumerate(cells[1:], 2):
        if len(row) > len(header):
            raise DataError(
                f"{path}: row {number} has {len(row)} cells, the header {len(header)}; mend the file"
            )
        rows.append(dict(_numbers(header, row)))
    return rows


def _numbers(header: list[str], cells: list[str]) -> Iterator[tuple[str, float]]:
    for name, cell in zip(header, cells, strict=False):
        try:
            yield name, float(cell)
        except ValueError:
            continue
