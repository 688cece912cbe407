"""Two clocks, and the time that both together tell: what deadlines and rates are measured by.

The wall clock survives a restart but may be set; the monotonic clock cannot be set but starts anew. A ``Timeline``
counts steady time: by the monotonic clock while the process runs, and over a restart by what the wall clock says has
passed, never less than nothing. Decisions use neither: they have the events' times.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from phalanx.errors import DataError

__all__ = ["SECOND_NS", "Clock", "Moment", "SystemClock", "Timeline"]

SECOND_NS = 1_000_000_000


@runtime_checkable
class Clock(Protocol):
    """What tells the time; injected, so that tests choose it."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, as far as the machine knows."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment before the process began; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment before the process began."""
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    Attributes:
        wall_ns: nanoseconds since 1970, as the wall clock had it.
        steady_ns: nanoseconds of steady time since the service first began, over all its restarts.
    """

    wall_ns: int
    steady_ns: int

    def as_json(self) -> list[int]:
        """``[wall_ns, steady_ns]``."""
        return [self.wall_ns, self.steady_ns]

    @staticmethod
    def of(value: Any) -> "Moment":
        """The moment of its JSON form.

        Raises:
            DataError: it is not two whole numbers.
        """
        if (
            isinstance(value, Sequence)
            and len(value) == 2
            and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
        ):
            return Moment(*value)
        raise DataError(f"moment {value!r}; expected [wall_ns, steady_ns]. The ledger is damaged: verify it")


class Timeline:
    """Steady time of a service.

    Args:
        clock: where both clocks are read.
        last: the latest moment known of the time before a restart; None where there was none.

    Example:
        >>> class Hands:
        ...     wall, monotonic = 1_000, 50
        ...     def wall_ns(self): return self.wall
        ...     def monotonic_ns(self): return self.monotonic
        >>> hands = Hands()
        >>> timeline = Timeline(hands)
        >>> hands.wall, hands.monotonic = 200, 53  # the wall clock is set back
        >>> timeline.now()
        Moment(wall_ns=200, steady_ns=3)
        >>> Timeline(hands, Moment(wall_ns=190, steady_ns=3)).now()  # after a restart
        Moment(wall_ns=200, steady_ns=13)
    """

    def __init__(self, clock: Clock, last: Moment | None = None) -> None:
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns()
        self._steady_ns = 0
        if last is not None:
            self._steady_ns = last.steady_ns + max(0, clock.wall_ns() - last.wall_ns)

    def now(self) -> Moment:
        """The present moment; its steady time is at least that of the moment before."""
        monotonic_ns = self._clock.monotonic_ns()
        self._steady_ns += max(0, monotonic_ns - self._monotonic_ns)
        self._monotonic_ns = max(self._monotonic_ns, monotonic_ns)
        return Moment(self._clock.wall_ns(), self._steady_ns)
