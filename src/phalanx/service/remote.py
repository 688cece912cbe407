"""A committee that decides elsewhere, as the desk sees it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from phalanx.service.ledger_entry import Entry
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.verdicts import Verdict

__all__ = ["Remote", "merged", "told_of", "without_quorum"]


@runtime_checkable
class Remote(Protocol):
    """A committee of nodes. For one thread; ``consensus.gateway.Gateway`` is one.

    Entries of its ledger come in order, each until it is said to be done, others' and earlier ones' too: whoever keeps
    the height of the last one that it has done misses none and gets none twice.

    Attributes:
        n, f: members, and the faults they tolerate.
        patience_s: how long an answer may take before the committee counts as being without a quorum.
        out: whether it is without one: little is submitted, until an answer comes after all.
    """

    n: int
    f: int
    patience_s: float
    out: bool

    def begin(self, height: int) -> None:
        """Begins to hear what was decided after a height of the committee's ledger."""
        ...

    def ask(self, events: Sequence[LiveEvent]) -> Sequence[str]:
        """Submits events that are not on their way already.

        Returns:
            Ids of those that cannot be submitted at all.
        """
        ...

    def next(self, wait_s: float) -> Entry | None:
        """The oldest entry that is not done; None where there is none in time."""
        ...

    def done(self) -> None:
        """The entry that ``next`` gave has been dealt with."""
        ...

    def lost(self) -> None:
        """No answer came in time."""
        ...

    def evidence(self) -> Sequence[dict[str, Any]]:
        """Evidence against members that said two things: bodies of entries, from the first on."""
        ...


def told_of(entry: Entry, again: Sequence[int]) -> dict[str, Any]:
    """What the desk's own ledger says of an entry of the committee's: where it is, in which blocks it was ordered and
    decided, who signed for it, and which of its events had been decided before, by place: these count no second time.
    """
    told = entry.body["consensus"]
    return {
        "chain": told["chain"],
        "height": entry.height,
        "hash": entry.hash,
        "ordered": told["ordered"],
        "decided": told["height"],
        "signatures": dict(entry.signatures),
        "models": list(told["models"]),
        "again": list(again),
    }


def merged(told: Sequence[LiveDecision], here: Sequence[LiveDecision]) -> list[LiveDecision]:
    """Decisions of a committee elsewhere, with the scores, robustness and evidence that were worked out here."""
    return [
        replace(
            own,
            verdict=each.verdict,
            votes=each.votes,
            quorum=each.quorum,
            model=each.model,
            tolerates=each.tolerates,
        )
        for each, own in zip(told, here, strict=True)
    ]


def without_quorum(event: LiveEvent, n: int, f: int) -> LiveDecision:
    """An alert on an event that a committee of n members has not decided."""
    return LiveDecision(
        event_id=event.id,
        time_ns=event.time_ns,
        host=event.host,
        subject=event.subject,
        verdict=Verdict.ALERT,
        votes=(None,) * n,
        quorum=False,
        score=0.0,
        shielded=False,
        robustness={},
        evidence=(event.id,),
        model="",
        tolerates=f,
    )
