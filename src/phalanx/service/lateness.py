"""Whether the clock of events has run ahead: what comes later counts as the latest seen, and time stands still."""

from collections.abc import Mapping

__all__ = ["Lateness"]


class Lateness:
    """Looks now and then at how many events came more than a minute late.

    One event with a wrong time is enough: all that follows is earlier, and rates, windows and tickets, by which members
    judge, are told that no time passes.

    Args:
        fewest: events to judge by.
        share: of them that are late, beyond which it is said.
        since: counters to begin at: what came before them is not judged.

    Attributes:
        late: whether most of the latest events were late.

    Example:
        >>> lateness = Lateness(fewest=100)
        >>> lateness.look({"events": 100, "late": 3})
        >>> lateness.late
        False
        >>> lateness.look({"events": 200, "late": 99})
        >>> lateness.late
        True
    """

    def __init__(
        self, fewest: int = 100, share: float = 0.5, *, since: Mapping[str, int] | None = None
    ) -> None:
        self.late = False
        self._fewest, self._share = fewest, share
        since = since or {}
        self._events, self._late = since.get("events", 0), since.get("late", 0)

    def look(self, counters: Mapping[str, int]) -> None:
        """Judges what came since it last did, where that is enough.

        Args:
            counters: of the engine, ``events`` and ``late``.
        """
        if counters["events"] < self._events:  # it went back: what could not be written down never was
            self._events, self._late = counters["events"], counters["late"]
        events, late = counters["events"] - self._events, counters["late"] - self._late
        if events >= self._fewest:
            self.late = late > self._share * events
            self._events, self._late = counters["events"], counters["late"]
