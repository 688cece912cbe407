"""Arguments of callers: one of the wrong type gets one clear error, as one out of range does."""

import math
import operator
from collections.abc import Mapping
from typing import Any

from phalanx.errors import UsageError

__all__ = ["expect_mapping", "number", "whole_number"]


def number(given: Any) -> float:
    """A number as float64; NaN, which lies in no range, for what is none. Text is none, whatever it says.

    Example:
        >>> number(2), number("2"), number(None)
        (2.0, nan, nan)
    """
    try:
        return math.nan if isinstance(given, str | bytes) else float(given)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def whole_number(what: str, given: Any, least: int) -> int:
    """A whole number from ``least`` on.

    Raises:
        UsageError: it is none, or a smaller one; the message begins with what it is.

    Example:
        >>> whole_number("entities", 4, 1)
        4
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = least - 1
    if found < least:
        raise UsageError(f"{what} {given!r}: expected a whole number from {least}")
    return found


def expect_mapping(what: str, given: Any) -> None:
    """Checks that something maps names to values.

    Raises:
        UsageError: it does not; the message begins with what it is.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{what}: expected a mapping from names to values, got {type(given).__name__}")
