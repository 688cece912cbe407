"""Whether the clock of events has run ahead: what comes then counts as the latest seen, and time stands still."""

from collections.abc import Mapping

__all__ = ["Lateness"]


class Lateness:
    """Looks now and then at how many events came from the past.

    One event with a wrong time is enough: all that follows is earlier, and rates, windows and tickets, by which members
    judge, are told that no time passes.

    Args:
        fewest: events to judge by.
        share: of them from the past, beyond which it is said.

    Attributes:
        late: whether most of the latest events came from the past.

    Example:
        >>> lateness = Lateness(fewest=100)
        >>> lateness.look({"events": 100, "from_the_past": 3})
        >>> lateness.late
        False
        >>> lateness.look({"events": 200, "from_the_past": 99})
        >>> lateness.late
        True
    """

    def __init__(self, fewest: int = 100, share: float = 0.5) -> None:
        self.late = False
        self._fewest, self._share = fewest, share
        self._events = self._past = 0

    def look(self, counters: Mapping[str, int]) -> None:
        """Judges what came since it last did, where that is enough.

        Args:
            counters: of the engine, ``events`` and ``from_the_past``; they only grow.
        """
        events, past = counters["events"] - self._events, counters["from_the_past"] - self._past
        if events >= self._fewest:
            self.late = past > self._share * events
            self._events, self._past = counters["events"], counters["from_the_past"]
