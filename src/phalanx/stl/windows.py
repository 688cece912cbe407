"""Sliding windows over a stream, a constant number of steps a value (amortised).

Source: Lemire, "Streaming maximum-minimum filter using no more than three comparisons per element", 2006 (the wedge);
Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021
(two stacks, for what has no inverse).
"""

from collections import deque

__all__ = ["Delay", "Extreme", "Reach", "Steps", "Wedge"]


class Delay:
    """What came ``length`` values ago; None until then."""

    __slots__ = ("_length", "held")

    def __init__(self, length: int) -> None:
        self._length, self.held = length, deque[float]()

    def __call__(self, value: float) -> float | None:
        self.held.append(value)
        return self.held.popleft() if len(self.held) > self._length else None


class Wedge:
    """The least (or greatest) of values at ascending places.

    Only values that may still become it are kept, in order: it is the first of them. What is not ``bounded`` forgets
    nothing, and keeps it alone.
    """

    __slots__ = ("_bounded", "_least", "entries")

    def __init__(self, least: bool, bounded: bool) -> None:
        self._least, self._bounded = least, bounded
        self.entries: deque[tuple[int, float]] = deque()  # place and value

    def push(self, at: int, value: float) -> None:
        """Takes in the value at the next place."""
        entries = self.entries
        if self._least:
            while entries and entries[-1][1] >= value:
                entries.pop()
        else:
            while entries and entries[-1][1] <= value:
                entries.pop()
        if self._bounded or not entries:
            entries.append((at, value))

    def drop(self, before: int) -> None:
        """Forgets the values before a place."""
        entries = self.entries
        while entries and entries[0][0] < before:
            entries.popleft()


class Extreme(Wedge):
    """The least (or greatest) of the last ``length`` values, of all where it is None."""

    __slots__ = ("_count", "_length")

    def __init__(self, least: bool, length: int | None) -> None:
        super().__init__(least, bounded=length is not None)
        self._length, self._count = length, 0

    def __call__(self, value: float) -> float:
        now = self._count
        self._count = now + 1
        self.push(now, value)
        entries = self.entries
        if self._length is not None and entries[0][0] <= now - self._length:
            entries.popleft()
        return entries[0][1]

    def suffixes(self, first: int, stop: int, pad: float) -> list[float]:
        """The extremes of all values from the ``first`` one taken on, from the next one on, and so on; else ``pad``."""
        entries, at, found = list(self.entries), 0, []
        for start in range(first, stop):
            while at < len(entries) and entries[at][0] < start:
                at += 1
            found.append(entries[at][1] if at < len(entries) else pad)
        return found


class Steps:
    """The last ``length`` steps x -> max(right, min(left, x)) in a row, from x = -inf; all where it is None.

    Any number of them in a row is max(low, min(high, x)) again. With ``newest_last`` the newest is taken last (since),
    else first (until).
    """

    __slots__ = ("_back", "_front", "_high", "_length", "_low", "_newest_last")

    def __init__(self, length: int | None, newest_last: bool) -> None:
        self._length, self._newest_last = length, newest_last
        self._front: list[tuple[float, float]] = []
        self._back: list[tuple[float, float]] = []
        self._low, self._high = float("-inf"), float("inf")

    def __call__(self, left: float, right: float) -> float:
        if len(self._front) + len(self._back) == self._length:
            self._drop_oldest()
        step = (right, max(left, right))
        if self._length is not None:
            self._back.append(step)
        low, high = self._low, self._high
        if self._newest_last:
            self._low = max(step[0], min(step[1], low))
            self._high = max(step[0], min(step[1], high))
        else:
            self._low = max(low, min(high, step[0]))
            self._high = max(low, min(high, step[1]))
        if not self._front:
            return self._low
        older, hold = self._front[-1]
        if self._newest_last:
            return max(self._low, min(self._high, older))
        return max(older, min(hold, self._low))

    def suffixes(self) -> list[float]:
        """The value of the steps from each one that is held to the newest, from the oldest on (until)."""
        value, found = float("-inf"), []
        for right, hold in reversed(self._back):
            value = max(right, min(hold, value))
            found.append(value)
        found += [max(low, min(high, value)) for low, high in self._front]
        return found[::-1]

    def _drop_oldest(self) -> None:
        if not self._front:
            low, high = float("-inf"), float("inf")
            for right, hold in reversed(self._back):
                if self._newest_last:
                    low, high = max(low, min(high, right)), max(low, min(high, hold))
                else:
                    low, high = max(right, min(hold, low)), max(right, min(hold, high))
                self._front.append((low, high))
            self._back.clear()
            self._low, self._high = float("-inf"), float("inf")
        self._front.pop()


class Reach:
    """What is known of ``until[begin,end]`` at the first sample: its value lies between what has been reached and that
    or what its left side still allows."""

    __slots__ = ("_begin", "_end", "_held", "_reached", "_taken")

    def __init__(self, begin: int, end: int | None) -> None:
        self._begin, self._end = begin, end
        self._taken, self._reached, self._held = 0, float("-inf"), float("inf")

    def __call__(self, left: float, right: float) -> None:
        if self._end is None or self._taken <= self._end:
            if self._taken >= self._begin:
                self._reached = max(self._reached, min(right, self._held))
            self._held = min(self._held, left)
        self._taken += 1

    def interval(self, ended: bool) -> tuple[float, float]:
        """Bounds, which meet once the trace has ended."""
        return self._reached, self._reached if ended else max(self._reached, self._held)
