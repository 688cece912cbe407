"""Rows of a log file: CSV, or JSON objects one a line, nested ones flattened. The last line may be torn."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phalanx.errors import DataError

__all__ = ["rows_of"]

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
    rows = _json_rows(path, text) if text.lstrip()[:1] == "{" else _csv_rows(path, text)
    if not any(rows):
        raise DataError(
            f"{path}: no row with a number. Expected a training log: CSV with a header, or a JSON object a line"
        )
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, float]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
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
            row[name] = float(value)
    return row


def _csv_rows(path: Path, text: str) -> list[dict[str, float]]:
    lines = list(csv.reader(text.splitlines()))
    if not lines or len(lines[0]) < 1:
        return []
    header = lines[0]
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        if len(cells) > len(header):
            raise DataError(
                f"{path}: line {number} has {len(cells)} cells, the header {len(header)}; mend the file"
            )
        if number == len(lines) and not text.endswith("\n") and len(cells) < len(header):
            break
        rows.append(dict(_numbers(header, cells)))
    return rows


def _numbers(header: list[str], cells: list[str]) -> Any:
    for name, cell in zip(header, cells, strict=False):
        try:
            yield name, float(cell)
        except ValueError:
            continue
