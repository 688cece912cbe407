"""Events decided so long ago that the desk may have let go of them: known again by their ids, from the store."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence

from phalanx.errors import DataError
from phalanx.service.desk import Answer
from phalanx.service.records import LiveEvent
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.seen import Seen
from phalanx.service.store import Found, Store

__all__ = ["Recall"]

_LOG = logging.getLogger("phalanx")


class Recall:
    """Answers events that were decided long ago.

    What the store does not have (it is away, or has let go of it too: ``--keep-days``) is the desk's to know, or to
    decide.

    Args:
        passing: ids that the desk has let go of, or may (``Known.passing``).
        store: where decisions are looked up.
        wait_s: how long the store may take, in s; as long again it is left alone where it took longer, or is away.
    """

    def __init__(self, passing: Seen, store: Store, *, wait_s: float = 2.0) -> None:
        self._passing, self._store, self._wait_s = passing, store, wait_s
        self._away_until = -math.inf

    async def answers(self, events: Mapping[int, LiveEvent]) -> dict[int, Answer]:
        """The answers to those that are found, by the keys that the events have."""
        names = set(self._passing.among([event.id for event in events.values()]))
        if not names or time.monotonic() < self._away_until:
            return {}
        try:
            async with asyncio.timeout(self._wait_s):
                found = await asyncio.to_thread(self._looked_up, sorted(names))
        except (DataError, TimeoutError):
            self._away_until = time.monotonic() + self._wait_s
            _LOG.warning(
                "the store does not answer: of %d events it is not known whether they were decided long ago",
                len(names),
            )
            return {}
        return {key: found[event.id] for key, event in events.items() if event.id in found}

    def _looked_up(self, names: Sequence[str]) -> dict[str, Answer]:
        return {each.event.id: _answer(each) for each in self._store.by_ids(names)}


def _answer(found: Found) -> Answer:
    effects = (Effect(found.effect or Effect.NONE), Effect(found.would or Effect.NONE))
    outcome = Outcome(*effects, found.reasons, found.restriction)
    return Answer(found.decision, found.height, outcome, repeated=True)
