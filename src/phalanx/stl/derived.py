"""Numbers that a sample's past makes: sums, quantiles and ages, of whole traces and of streams, equal bit for bit.

A sum of floating-point numbers depends on the order of its terms, and adding what comes and subtracting what goes lets
errors pile up. So the trace is cut into blocks as long as the window: any window is the end of one block, summed from
right to left, and the beginning of the next, summed from left to right. No error is older than its window.

Source: Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021 (two
stacks); Gil and Werman, "Computing 2-D min, median, and max filters", 1993 (blocks); Hyndman and Fan, "Sample quantiles
in statistical packages", 1996 (type 1).
"""

import math
from bisect import bisect_left, insort
from collections import deque
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

__all__ = ["Age", "Quantile", "Sum", "ages", "quantiles", "rank", "sums"]

Trace = NDArray[np.float64]
_NOTHING = -0.0  # what leaves every number as it is when added, a negative zero too


class Sum:
    """The sum of the last ``length`` values, of all where there are fewer.

    Example:
        >>> total = Sum(2)
        >>> [total(value) for value in (1.0, 2.0, 4.0, 8.0)]
        [1.0, 3.0, 6.0, 12.0]
    """

    __slots__ = ("_after", "_block", "_length", "_sum")

    def __init__(self, length: int) -> None:
        self._length, self._sum = length, _NOTHING
        self._block: list[float] = []
        self._after: list[float] = []  # sums of the last 1, 2, ... values of the block before

    def __call__(self, value: float) -> float:
        block = self._block
        block.append(value)
        self._sum = found = self._sum + value
        before = self._length - len(block)
        if not before:
            self._after = list(accumulate(reversed(block)))
            block.clear()
            self._sum = _NOTHING
        elif self._after:
            found += self._after[before - 1]
        return found


def sums(values: Trace, length: int) -> Trace:
    """``Sum`` at each sample of a trace.

    Example:
        >>> sums(np.array([1.0, 2.0, 4.0, 8.0]), 2)
        array([ 1.,  3.,  6., 12.])
    """
    size = values.size
    length = min(length, size)
    blocks = np.full((-(-size // length), length), _NOTHING)
    blocks.reshape(-1)[:size] = values
    with np.errstate(all="ignore"):
        found = np.cumsum(blocks, axis=1).reshape(-1)[:size]
        after = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
        after[::length] = _NOTHING  # a window that is a block
        found[length:] += after[1 : size - length + 1]
    return found


def rank(share: float, count: int) -> int:
    """The least k, from 1, with k / count >= share: the lower quantile is the k-th smallest of ``count`` values.

    Example:
        >>> rank(0.5, 4), rank(0.5, 5), rank(0.0, 5), rank(1.0, 5), rank(0.07, 100)
        (2, 3, 1, 5, 7)
    """
    k = math.ceil(share * count)  # off by one where the product was rounded
    k += (k / count < share) - ((k - 1) / count >= share)
    return max(k, 1)


class Quantile:
    """The lower quantile of the last ``length`` values: the least with a share of at least ``share`` at or below it.

    Example:
        >>> median = Quantile(0.5, 3)
        >>> [median(value) for value in (5.0, 1.0, 3.0, 9.0)]
        [5.0, 1.0, 3.0, 3.0]
    """

    __slots__ = ("_at", "_length", "_share", "_sorted", "_window")

    def __init__(self, share: float, length: int) -> None:
        self._share, self._length, self._at = share, length, 0
        self._window: deque[float] = deque()
        self._sorted: list[float] = []

    def __call__(self, value: float) -> float:
        window, ordered = self._window, self._sorted
        full = len(window) == self._length
        if full:
            del ordered[bisect_left(ordered, window.popleft())]
        window.append(value)
        insort(ordered, value)
        if not full:
            self._at = rank(self._share, len(ordered)) - 1
        return ordered[self._at]


def quantiles(values: Trace, share: float, length: int) -> Trace:
    """``Quantile`` at each sample of a trace."""
    quantile = Quantile(share, length)
    return np.array([quantile(value) for value in values.tolist()])


class Age:
    """Seconds since a value was last greater than 0: 0 where it is, infinite before it ever was.

    Example:
        >>> age = Age(500_000_000)
        >>> [age(value) for value in (0.0, 1.0, 0.0, -2.0)]
        [inf, 0.0, 0.5, 1.0]
    """

    __slots__ = ("_period_ns", "_steps")

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._steps: int | None = None

    def __call__(self, value: float) -> float:
        if value > 0.0:
            self._steps = 0
        elif self._steps is not None:
            self._steps += 1
        return math.inf if self._steps is None else self._steps * self._period_ns / 1e9


def ages(values: Trace, period_ns: int) -> Trace:
    """``Age`` at each sample of a trace."""
    samples = np.arange(values.size)
    last = np.maximum.accumulate(np.where(values > 0.0, samples, -1))
    return np.where(last < 0, np.inf, (samples - last) * period_ns / 1e9)
