"""Events as they arrive, one dictionary each, encoded as ``Encoder.encode_columns`` encodes tables.

A table pays for itself from some hundred rows on; a live event must not wait for one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32

from phalanx.data.columns import MISSING, UNSEEN, CategoryColumn, scale_numbers
from phalanx.data.encoder import Encoder
from phalanx.data.features import TRANSFORMS
from phalanx.errors import UsageError

__all__ = ["RowEncoder"]

_REMEMBERED = 65_536  # texts whose ids are kept, a column: attackers choose paths


class RowEncoder:
    """The columns of an encoder for single events.

    Args:
        encoder: as it was fitted.

    Raises:
        UsageError: an encoder that scales by the largest of the rows encoded together.

    Example:
        >>> rows = RowEncoder(Encoder.from_vocabulary({"kind": ["READ", "EXECUTE"]}, {"size": (0.0, 1.0)}))
        >>> category, numeric = rows.encode([{"kind": "EXECUTE", "size": 0}, {"kind": "NEW"}, {}])
        >>> category[:, 0].tolist(), numeric[:, 0].tolist()
        ([3, 0, 1], [0.0, 0.0, 0.0])
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.scaling != "log":
            raise UsageError(
                f"an encoder with scaling {encoder.scaling!r} looks at all rows together, which live events are not; "
                "train a run without --preset original"
            )
        self._columns = [_Ids(column) for column in encoder.categories]
        self._numbers = encoder.numbers

    def encode(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[Int32[np.ndarray, "event column"], Float32[np.ndarray, "event number"]]:
        """Category ids and scaled numbers.

        Args:
            rows: source columns by name: text, numbers, truth values; None or absent: missing.
        """
        category = np.full((len(rows), len(self._columns)), MISSING, np.int32)
        for index, ids in enumerate(self._columns):
            source = ids.column.source
            category[:, index] = ids.of_all([row.get(source) for row in rows])
        raw = np.full((len(rows), len(self._numbers)), np.nan, np.float32)
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and cut by the scale
            for index, number in enumerate(self._numbers):
                raw[:, index] = _numbers([row.get(number.name) for row in rows])
        return category, scale_numbers(raw, self._numbers, np)


class _Ids:
    """The ids of one column's texts, those seen lately remembered."""

    def __init__(self, column: CategoryColumn) -> None:
        self.column = column
        self._known = {value: index + UNSEEN + 2 for index, value in enumerate(column.values)} | {"": MISSING}
        self._transform = TRANSFORMS[column.transform] or str
        self._found: dict[str, int] = {}

    def of_all(self, values: Sequence[Any]) -> list[int]:
        lately = map(self._found.get, values)  # nothing but a text is equal to a text
        return [
            self.of(value) if found is None else found for value, found in zip(values, lately, strict=True)
        ]

    def of(self, value: Any) -> int:
        text = _text(value)
        found = self._found.get(text)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[text] = self._known.get(self._transform(text), UNSEEN)
        return found


def _text(value: Any) -> str:
    """A value as a table's column of texts has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _numbers(values: Sequence[Any]) -> Float[np.ndarray, " event"] | list[float]:
    """Values as a table's column of numbers has them."""
    if set(map(type, values)) != {float}:
        return [_number(value) for value in values]
    numbers = np.array(values)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _number(value: Any) -> float:
    """A value as a table's column of numbers has it, NaN where it is none."""
    if value is None:
        return np.nan
    if isinstance(value, str):
        if value.strip() != value or "_" in value:  # Python would read those
            return np.nan
        try:
            value = float(value)
        except ValueError:
            return np.nan
    number = float(value)
    return number if np.isfinite(number) else np.nan
