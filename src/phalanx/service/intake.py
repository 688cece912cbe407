"""From bytes to results: what a request or a stream brings is admitted, decided and told, event by event."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence

from phalanx.service.admission import Admission, Reason, Refused
from phalanx.service.desk import Answer
from phalanx.service.metrics import Metrics
from phalanx.service.recall import Recall
from phalanx.service.records import LiveEvent
from phalanx.service.replies import EventResult, event_result
from phalanx.service.worker import Failed, UnavailableError, Worker

__all__ = ["Intake"]

_AT_ONCE = 32  # events read before other requests get their turn
_WAIT_S = 0.02
_ASK_AGAIN_S = 0.5


class Intake:
    """Where events come in, over whatever they come.

    Args:
        admission: what is admitted; from now on used by the event loop's thread alone.
        worker: who decides.
        metrics: where it is counted.
        recall: knows what was decided long ago.
    """

    def __init__(
        self, admission: Admission, worker: Worker, metrics: Metrics, recall: Recall | None = None
    ) -> None:
        self.admission, self.worker, self.metrics, self._recall = admission, worker, metrics, recall

    async def results(
        self, items: Sequence[tuple[str, bytes]], *, key: str = "", first: int = 0, patient: bool = False
    ) -> list[EventResult]:
        """What becomes of events, in their order.

        Args:
            items: their JSON, each with its place in words.
            key: idempotency key of the request.
            first: place of the first one in the request.
            patient: whether to wait for room instead of raising.

        Raises:
            UnavailableError: none of them was taken.
        """
        found: dict[int, Answer | Failed | Refused] = {}
        events: dict[int, LiveEvent] = {}
        for index, (place, item) in enumerate(items, first):
            admitted = self.admission.admit(item, index, place, key)
            if isinstance(admitted, Refused):
                found[index] = admitted
            else:
                events[index] = admitted
            if index % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        if events:
            answers = await self._answers(events, patient)
            found |= answers
            self.metrics.events("failed", sum(isinstance(each, Failed) for each in answers.values()))
        results = [
            event_result(index, events.get(index), found[index]) for index in range(first, first + len(items))
        ]
        for result in results:
            if result.error is not None and result.error.code == Reason.ID_TAKEN:
                self.admission.counts[Reason.ID_TAKEN.value] += 1
        return results

    async def _answers(self, events: Mapping[int, LiveEvent], patient: bool) -> Mapping[int, Answer | Failed]:
        known: dict[int, Answer | Failed] = {}
        new, ask_again = dict(events), -math.inf
        while True:
            # asked anew now and then: meanwhile others' events may have pushed out what the desk knew
            if self._recall is not None and time.monotonic() >= ask_again:
                known |= await self._recall.answers(new)
                new = {index: event for index, event in events.items() if index not in known}
                ask_again = time.monotonic() + _ASK_AGAIN_S
            try:
                decided = await asyncio.wrap_future(self.worker.submit(list(new.values()))) if new else []
            except UnavailableError as problem:
                if not patient or problem.code != "queue-full":
                    raise
                await asyncio.sleep(_WAIT_S)
                continue
            self.metrics.recalled(len(known))
            return {**known, **dict(zip(new, decided, strict=True))}
