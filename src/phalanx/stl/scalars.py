"""Operators at one sample, on single numbers and on what is only known to lie between two."""

import math
from collections.abc import Callable
from functools import cache

from phalanx.stl.operators import POINTWISE

__all__ = ["UNKNOWN", "Interval", "function_of", "interval_of", "value_of"]

Interval = tuple[float, float]

UNKNOWN: Interval = (-math.inf, math.inf)


class _Scalars:
    """The array functions of the operator table, for single numbers."""

    minimum, maximum, abs, sqrt, exp, power = min, max, abs, math.sqrt, math.exp, math.pow

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b


@cache
def function_of(op: str) -> Callable[..., float]:
    """A pointwise operator on numbers; the function raises an ArithmeticError or ValueError where it has no value."""
    function = POINTWISE[op]

    def value(*args: float) -> float:
        found = function(_Scalars, *args)
        if found != found:
            raise ValueError("NaN")
        return found

    return value


def value_of(op: str, *args: float) -> float:
    """A pointwise operator's value.

    Raises:
        ArithmeticError, ValueError: it has none.
    """
    return function_of(op)(*args)


def interval_of(op: str, lows: tuple[float, ...], highs: tuple[float, ...]) -> Interval:
    """Bounds of a pointwise operator's value, whatever its arguments are between their lower and upper ends.

    Arithmetic on what is not known exactly is unknown, for it may leave the real numbers.

    Raises:
        ArithmeticError, ValueError: the arguments are known and there is no value.

    Example:
        >>> interval_of("and", (1.0, -2.0), (1.0, 3.0)), interval_of("not", (-2.0,), (3.0,))
        ((-2.0, 1.0), (-3.0, 2.0))
        >>> interval_of("distance", (1.0, -2.0), (1.0, 3.0))
        (0.0, 3.0)
    """
    if lows == highs:
        value = value_of(op, *lows)
        return value, value
    if op == "not":
        return -highs[0], -lows[0]
    if op in ("and", "or"):
        return value_of(op, *lows), value_of(op, *highs)
    if op not in ("difference", "distance"):
        return UNKNOWN
    low, high = value_of("difference", lows[0], highs[1]), value_of("difference", highs[0], lows[1])
    return (low, high) if op == "difference" else (max(0.0, low, -high), max(-low, high))
