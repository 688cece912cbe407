"""Decisions on the latest events by their ids; of those before them, that they were decided."""

from phalanx.service.records import LiveDecision
from phalanx.service.seen import Seen

__all__ = ["Known"]


class Known:
    """Keeps decisions in two generations: when the younger is full and ``let_go`` is called, the elder goes.

    Args:
        fewest: of the latest events, whose decisions are kept; about twice as many at most.

    Attributes:
        passing: ids of decisions that have gone or may go next. Nothing goes that has not been in here for ``fewest``
            events: who finds an id missing here, and then waits for fewer than that, still finds its decision.

    Example:
        >>> from phalanx.verdicts import Verdict
        >>> def put(known, name):
        ...     known.put(name, 1, LiveDecision(name, 5, "h", "p", Verdict.ALLOW, (), True, 0.1, False, {}, (), "m"))
        >>> known = Known(2)
        >>> for name in "abcde":
        ...     put(known, name)
        ...     known.let_go()
        >>> [name for name in "abcde" if name in known], known.passing.among(["a", "b", "c", "d", "e"])
        (['c', 'd', 'e'], ['a', 'b', 'c', 'd'])
    """

    def __init__(self, fewest: int) -> None:
        self.passing = Seen()
        self._fewest = fewest
        self._young: dict[str, tuple[int, LiveDecision]] = {}
        self._old: dict[str, tuple[int, LiveDecision]] = {}

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._young or event_id in self._old

    def __getitem__(self, event_id: str) -> tuple[int, LiveDecision]:
        found = self.get(event_id)
        if found is None:
            raise KeyError(event_id)
        return found

    def get(self, event_id: str) -> tuple[int, LiveDecision] | None:
        """Height of the ledger's entry, and the decision; None where it is not kept."""
        return self._young.get(event_id) or self._old.get(event_id)

    def put(self, event_id: str, height: int, decision: LiveDecision) -> None:
        """Keeps a decision; it takes the place of an earlier one on the same event."""
        self._young[event_id] = (height, decision)

    def let_go(self) -> None:
        """Lets go of the elder ones where there are enough younger ones."""
        if len(self._young) < self._fewest:
            return
        names = list(self._young)
        for at in range(0, len(names), self.passing.capacity):
            self.passing.add(names[at : at + self.passing.capacity])
        self._young, self._old = {}, self._young
