"""Sums and quantiles of the past over events at uneven times, of whole traces and of streams, equal bit for bit.

As in ``derived``, a window is the end of one block and the beginning of the next; here a block is a stretch of time, as
many nanoseconds long as the window has: it holds both its ends, so one more than it is wide.
"""

from bisect import bisect_left, insort
from collections import deque
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from phalanx.stl.derived import rank
from phalanx.stl.scalars import UNKNOWN, Interval

__all__ = ["EventQuantile", "EventSum", "event_ages", "event_quantiles", "event_sums"]

Times = NDArray[np.int64]
Trace = NDArray[np.float64]
_NOTHING = -0.0  # what leaves every number as it is when added, a negative zero too


class EventSum:
    """The sum of the events of the last ``width_ns``, both ends included."""

    __slots__ = ("_after", "_block", "_length_ns", "_sum", "_until_ns")

    def __init__(self, width_ns: int) -> None:
        self._length_ns = width_ns + 1
        self._until_ns: int | None = None  # where the current block ends, itself outside
        self._sum = _NOTHING
        self._block: list[tuple[int, float]] = []
        self._after: deque[tuple[int, float]] = deque()  # the block before, each with the sum from there on

    def push(self, time_ns: int, value: float) -> None:
        if self._until_ns is None:
            self._until_ns = time_ns + self._length_ns
        elif time_ns >= self._until_ns:
            self._until_ns += ((time_ns - self._until_ns) // self._length_ns + 1) * self._length_ns
            times, values = zip(*self._block, strict=True)
            self._after = deque(zip(times[::-1], accumulate(values[::-1]), strict=True))
            self._block, self._sum = [], _NOTHING
        self._block.append((time_ns, value))
        self._sum += value

    def drop(self, before_ns: int) -> None:
        while self._after and self._after[-1][0] < before_ns:
            self._after.pop()

    def value(self) -> float:
        return self._sum + self._after[-1][1] if self._after else self._sum

    def bounds(self) -> Interval:
        return UNKNOWN


def event_sums(times: Times, values: Trace, width_ns: int) -> Trace:
    """``EventSum`` at each sample of a trace.

    Example:
        >>> event_sums(np.array([0, 3, 4, 9]), np.array([1.0, 2.0, 4.0, 8.0]), 4)
        array([1., 3., 7., 8.])
    """
    blocks = (times - times[0]) // (width_ns + 1)
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    with np.errstate(all="ignore"):
        found = _sums_in_blocks(values, starts)
        after = _sums_in_blocks(values[::-1], times.size - np.append(starts[1:], times.size)[::-1])[::-1]
        first = np.searchsorted(times, times - width_ns)
        found += np.where(blocks[first] < blocks, after[first], _NOTHING)
    return found


def _sums_in_blocks(values: Trace, starts: NDArray[np.intp]) -> Trace:
    """Running sums that begin anew at each start."""
    sizes = np.diff(starts, append=values.size)
    longest = int(sizes.max())
    if starts.size * longest > 4 * values.size:
        return np.concatenate([np.cumsum(block) for block in np.split(values, starts[1:])])
    inside = np.arange(longest) < sizes[:, None]
    padded = np.full(inside.shape, _NOTHING)
    padded[inside] = values
    return np.cumsum(padded, axis=1)[inside]


class EventQuantile:
    """The lower quantile of the events it holds (``derived.Quantile``)."""

    __slots__ = ("_share", "_sorted", "_window")

    def __init__(self, share: float) -> None:
        self._share = share
        self._window: deque[tuple[int, float]] = deque()
        self._sorted: list[float] = []

    def push(self, time_ns: int, value: float) -> None:
        self._window.append((time_ns, value))
        insort(self._sorted, value)

    def drop(self, before_ns: int) -> None:
        while self._window and self._window[0][0] < before_ns:
            del self._sorted[bisect_left(self._sorted, self._window.popleft()[1])]

    def value(self) -> float:
        return self._sorted[rank(self._share, len(self._sorted)) - 1]

    def bounds(self) -> Interval:
        return UNKNOWN


def event_quantiles(times: Times, values: Trace, share: float, width_ns: int) -> Trace:
    """``EventQuantile`` at each sample of a trace."""
    quantile, found = EventQuantile(share), np.empty(values.size)
    for i, (time_ns, value) in enumerate(zip(times.tolist(), values.tolist(), strict=True)):
        quantile.push(time_ns, value)
        quantile.drop(time_ns - width_ns)
        found[i] = quantile.value()
    return found


def event_ages(times: Times, values: Trace) -> Trace:
    """Seconds since a value was last greater than 0, at each sample: infinite before it ever was.

    Example:
        >>> event_ages(np.array([0, 10**9, 2_500_000_000]), np.array([0.0, 1.0, -1.0]))
        array([inf, 0. , 1.5])
    """
    last = np.maximum.accumulate(np.where(values > 0.0, np.arange(values.size), -1))
    return np.where(last < 0, np.inf, (times - times[last]) / 1e9)
