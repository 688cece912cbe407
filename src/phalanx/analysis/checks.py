"""What the metrics share: columns that are checked at the door, and ratios that may be undefined."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from phalanx.errors import DataError, unknown_name
from phalanx.types import Verdict

__all__ = ["POSITIVE", "ratio", "same_length", "severity", "weights", "whole_numbers"]

POSITIVE = {"alert": Verdict.ALERT, "restrict": Verdict.BLOCK}
"""The mildest verdict that counts as positive, by name."""


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``, or ``None`` where the whole is not positive and the ratio so undefined.

    Example:
        >>> ratio(1, 4), ratio(0, 0)
        (0.25, None)
    """
    return float(part) / float(whole) if whole > 0 else None


def severity(positive: str) -> int:
    """The mildest verdict that counts as positive.

    Raises:
        UsageError: a name that ``POSITIVE`` does not hold.

    Example:
        >>> severity("restrict")
        2
    """
    if positive not in POSITIVE:
        raise unknown_name("positive", positive, POSITIVE)
    return int(POSITIVE[positive])


def whole_numbers(name: str, values: ArrayLike, low: int, high: int) -> Int[np.ndarray, "..."]:
    """The values as integers.

    Args:
        name: of the column, for the error.
        values: any shape.
        low: least value allowed.
        high: greatest value allowed.

    Raises:
        DataError: a value that is not a whole number from ``low`` to ``high``; the first is named.

    Example:
        >>> whole_numbers("label", [1.0, -1.0], -1, 1)
        array([ 1, -1])
    """
    array = np.asarray(values)
    bad = np.argwhere((array < low) | (array > high) | (array != np.floor(array)) | np.isnan(array))
    if bad.size:
        place = tuple(int(i) for i in bad[0])
        where = str(place[0]) if len(place) == 1 else str(place)
        raise DataError(
            f"{name}={array[place]} at row {where}; expected a whole number from {low} to {high}. "
            "Map the column to these values first"
        )
    return array.astype(np.int64)


def same_length(**arrays: np.ndarray) -> None:
    """Checks that the columns, given by name, have equally many rows.

    Raises:
        DataError: they have not.

    Example:
        >>> same_length(label=np.zeros(2), score=np.ones(2))
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise DataError(f"rows differ in number: {listed}. Pass one entry per row in each")


def weights(weight: ArrayLike | None, n: int) -> Float[np.ndarray, " row"]:
    """One weight per row; ones where none are given.

    Args:
        weight: finite and >= 0, one per row; only their ratios matter.
        n: rows.

    Raises:
        DataError: another number of weights, or one that is negative or not finite.

    Example:
        >>> weights(None, 2)
        array([1., 1.])
    """
    if weight is None:
        return np.ones(n)
    array = np.asarray(weight, np.float64)
    if array.shape != (n,):
        raise DataError(f"weight has shape {array.shape}; expected one for each of {n} rows")
    bad = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if bad.size:
        raise DataError(
            f"weight={array[bad[0]]} at row {bad[0]}; expected a finite number >= 0. "
            "Give rows that should not count the weight 0"
        )
    return array
