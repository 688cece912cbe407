"""Events decided so long ago that the desk may have let go of them: known again by their ids, from the store."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from phalanx.service.aside import Aside
from phalanx.service.desk import Answer
from phalanx.service.records import LiveEvent, content_hash
from phalanx.service.safety import CONSIDERED, Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.seen import Seen
from phalanx.service.store import Found, Store
from phalanx.verdicts import Verdict

__all__ = ["Recall"]

_LOG = logging.getLogger("phalanx")


class Recall:
    """Answers events that were decided long ago.

    What the store does not have (it is away, or has let go of it too: ``--keep-days``) is the desk's to know, or to
    decide. Lookups have one thread of their own, so that a database that hangs holds up nothing else, nor the end.

    Args:
        passing: ids that the desk has let go of, or may (``Known.passing``).
        store: where decisions are looked up.
        wait_s: how long the store may take for one request's events, in s; others' before it do not count.
        pause_s: how long the store is left alone where it took longer, or is away, in s.
    """

    def __init__(self, passing: Seen, store: Store, *, wait_s: float = 0.5, pause_s: float = 10.0) -> None:
        self._passing, self._store = passing, store
        self._wait_s, self._pause_s = wait_s, pause_s
        self._away_until = -math.inf
        self._aside = Aside("recalling")

    async def answers(self, events: Mapping[int, LiveEvent]) -> dict[int, Answer]:
        """The answers to those that are found, by the keys that the events have."""
        names = sorted(set(self._passing.among([event.id for event in events.values()])))
        if not names or time.monotonic() < self._away_until:
            return {}
        looked_up = self._aside.submit(lambda: self._store.by_ids(names))
        waiting = asyncio.wrap_future(looked_up)
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=self._wait_s)
                if done:
                    found = {each.event.id: each for each in waiting.result()}
                    return {
                        key: _answer(found[event.id], event)
                        for key, event in events.items()
                        if event.id in found
                    }
                if self._aside.stuck_s >= self._wait_s or time.monotonic() < self._away_until:
                    raise TimeoutError  # else there are only others before it
        except Exception as problem:
            if time.monotonic() >= self._away_until:
                _LOG.warning("the store does not say what was decided long ago (%s)", type(problem).__name__)
            self._away_until = time.monotonic() + self._pause_s
            waiting.cancel()
            return {}


def _answer(found: Found, event: LiveEvent) -> Answer:
    if not found.effect and found.decision.verdict is not Verdict.ALLOW:
        outcome = CONSIDERED  # what it led to is not known any more
    else:
        effects = (Effect(found.effect or Effect.NONE), Effect(found.would or Effect.NONE))
        outcome = Outcome(*effects, found.reasons, found.restriction)
    another = content_hash(found.event) != content_hash(event)
    return Answer(found.decision, found.height, outcome, repeated=True, another=another)
