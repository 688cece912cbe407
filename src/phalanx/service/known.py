"""Decisions on the latest events by their ids; of those before them, that they were decided."""

from collections import deque

from phalanx.service.records import LiveDecision
from phalanx.service.seen import Seen

__all__ = ["Known"]

_AT_ONCE = 1024  # ids that are dealt with together, so that it takes no long time at once


class Known:
    """Keeps decisions until so many later ones have come, and ids for much longer.

    Args:
        fewest: of the latest events, whose decisions are kept; about twice as many at most.

    Attributes:
        passing: ids of decisions that have gone or may go next. Nothing goes that has not been in here for ``fewest``
            events: who finds an id missing here, and then waits for fewer than that, still finds its decision.

    Example:
        >>> from phalanx.verdicts import Verdict
        >>> def put(known, name):
        ...     known.put(name, 1, LiveDecision(name, 5, "h", "p", Verdict.ALLOW, (), True, 0.1, False, {}, (), "m"), 7)
        >>> known = Known(2)
        >>> for name in "abcdef":
        ...     put(known, name)
        ...     known.let_go()
        >>> [name for name in "abcdef" if name in known], known.passing.among(["a", "b", "c", "d", "e", "f"])
        (['c', 'd', 'e', 'f'], ['a', 'b', 'c', 'd'])
    """

    def __init__(self, fewest: int) -> None:
        self.passing = Seen()
        self._fewest, self._step = fewest, min(_AT_ONCE, fewest)
        self._kept: dict[str, tuple[int, LiveDecision, int]] = {}
        self._latest: list[str] = []
        self._young: deque[list[str]] = deque()  # not passing
        self._old: deque[list[str]] = deque()  # passing

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._kept

    def __getitem__(self, event_id: str) -> tuple[int, LiveDecision, int]:
        return self._kept[event_id]

    def get(self, event_id: str) -> tuple[int, LiveDecision, int] | None:
        """Height of the ledger's entry, the decision, the event's ``content_hash``; None where it is not kept."""
        return self._kept.get(event_id)

    def put(self, event_id: str, height: int, decision: LiveDecision, content: int) -> None:
        """Keeps a decision; it takes the place, and the age, of an earlier one on the same event."""
        if event_id not in self._kept:
            self._latest.append(event_id)
        self._kept[event_id] = (height, decision, content)

    def let_go(self) -> None:
        """Lets go of the eldest ones where there are enough later ones."""
        if len(self._latest) < self._step:
            return
        step, whole = self._step, len(self._latest) - len(self._latest) % self._step
        self._young += [self._latest[at : at + step] for at in range(0, whole, step)]
        self._latest = self._latest[whole:]
        parts = -(-self._fewest // self._step)
        while len(self._young) > parts:
            ids = self._young.popleft()
            self.passing.add(ids)
            self._old.append(ids)
        while len(self._old) > parts:
            for event_id in self._old.popleft():
                del self._kept[event_id]
