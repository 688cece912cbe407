"""Windows between two times over a stream of events, a constant number of steps an event (amortised).

Events are pushed in order of time; ``drop`` forgets what is older than a time that never goes back. A window that is
not ``bounded`` forgets nothing and holds one entry.

Source: Lemire, "Streaming maximum-minimum filter using no more than three comparisons per element", 2006 (the wedge);
Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021
(two stacks, for what has no inverse).
"""

import math
from typing import Any, Protocol, runtime_checkable

from phalanx.stl.scalars import UNKNOWN, Interval
from phalanx.stl.windows import Wedge

__all__ = ["EventExtreme", "EventSteps", "EventWindow"]

_INF = math.inf


@runtime_checkable
class EventWindow(Protocol):
    """What a window over events does."""

    def push(self, time_ns: int, value: Any, /) -> None:
        """Takes the next event in."""

    def drop(self, before_ns: int, /) -> None:
        """Forgets the events before a time."""

    def value(self) -> float:
        """The value over the events that it holds."""
        ...

    def bounds(self) -> Interval:
        """What the value can still become when more events are pushed."""
        ...


class EventExtreme(Wedge):
    """The least (or greatest) value."""

    __slots__ = ()

    def value(self) -> float:
        return self.entries[0][1] if self.entries else _INF if self._least else -_INF

    def bounds(self) -> Interval:
        return (-_INF, self.value()) if self._least else (self.value(), _INF)


class EventSteps:
    """The steps x -> max(right, min(left, x)) of the events in a row, from x = -inf.

    Any number of them in a row is max(low, min(high, x)) again. With ``newest_last`` the newest is taken last (since),
    else first (until).
    """

    __slots__ = ("_back", "_bounded", "_front", "_high", "_low", "_newest_last")

    def __init__(self, newest_last: bool, bounded: bool) -> None:
        self._newest_last, self._bounded = newest_last, bounded
        self._front: list[
            tuple[int, float, float]
        ] = []  # the oldest is last: it and all others that are here
        self._back: list[tuple[int, float, float]] = []  # single steps
        self._low, self._high = UNKNOWN  # of all of them in the back

    def push(self, time_ns: int, value: tuple[float, float]) -> None:
        left, right = value
        low, high = right, max(left, right)
        if self._bounded:
            self._back.append((time_ns, low, high))
        self._low, self._high = self._joined((self._low, self._high), (low, high))

    def _joined(self, older: Interval, newer: Interval) -> Interval:
        """Two clamps in a row."""
        outer, inner = (newer, older) if self._newest_last else (older, newer)
        return max(outer[0], min(outer[1], inner[0])), max(outer[0], min(outer[1], inner[1]))

    def drop(self, before_ns: int) -> None:
        front, back = self._front, self._back
        while front and front[-1][0] < before_ns:
            front.pop()
        if not front and back and back[0][0] < before_ns:
            clamp = UNKNOWN
            for time_ns, low, high in reversed(back):
                if time_ns < before_ns:
                    break
                clamp = self._joined((low, high), clamp)
                front.append((time_ns, *clamp))
            back.clear()
            self._low, self._high = UNKNOWN

    def _clamp(self) -> Interval:
        back = self._low, self._high
        return self._joined(self._front[-1][1:], back) if self._front else back

    def value(self) -> float:
        return self._clamp()[0]

    def bounds(self) -> Interval:
        return UNKNOWN if self._newest_last else self._clamp()
