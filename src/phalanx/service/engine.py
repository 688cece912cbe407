"""The committee in one process: events in, decisions out, the same for the same events in the same order.

Nothing here reads a clock, a file or a random number while it decides: time is the events' own, so that replaying what
was recorded gives the same decisions, however the events came in batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phalanx.data.events import event_class_of
from phalanx.data.row_encoder import RowEncoder
from phalanx.errors import RunError, UsageError
from phalanx.service.live import LiveAnswers, LiveBatch, LivePath, LiveState
from phalanx.service.model import Model
from phalanx.service.processes import Place, Processes
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.snapshot import read_snapshot, write_snapshot
from phalanx.verdicts import Verdict

__all__ = ["Engine", "EngineConfig", "Mark"]

_EVIDENCE = 8
_VERDICTS = tuple(Verdict)
_TOLD = ("verdict", "votes", "quorum", "score", "shielded", "robustness")
_LATE_S = 60.0
_REBASE_S = 65_536.0
"""Time counts from the first event in float32, whose steps grow; it is set back by this much where it has grown so."""


@dataclass(frozen=True)
class EngineConfig:
    """Bounds of the memory.

    Attributes:
        slots: processes remembered.
        batch: events answered in one call of the compiled step.
        host_share: of the slots that one host may have.
        suspicion_s: how long a process that was answered is kept, by the events' clock, in s.
        answering: see ``live.ANSWERING``.
    """

    slots: int = 4096
    batch: int = 256
    host_share: float = 0.5
    suspicion_s: float = 3600.0
    answering: str = "alerts"


@dataclass(frozen=True)
class Mark:
    """What an engine knew at some moment; see ``Engine.mark``."""

    counters: Mapping[str, int]
    processes: Processes
    evidence: Mapping[int, tuple[str, ...]]
    start_ns: int | None
    latest_s: float
    state: LiveState


class Engine:
    """Answers events one after the other.

    Args:
        model: who decides.
        config: bounds.

    Attributes:
        counters: events answered; without memory; from the past (their time counts as the latest seen), and of these
            more than a minute ``late``.
    """

    def __init__(self, model: Model, config: EngineConfig = EngineConfig()) -> None:
        fewest = 2 * config.batch
        if config.slots * config.host_share < fewest:
            raise UsageError(
                f"{config.slots} places of which a host may have {config.host_share:g}: at least {fewest} a host are "
                f"needed for batches of {config.batch}"
            )
        self.config = config
        self.counters = {"events": 0, "without_memory": 0, "from_the_past": 0, "late": 0}
        self._processes = Processes(config.slots, config.host_share)
        self._evidence: dict[int, tuple[str, ...]] = {}
        self._start_ns: int | None = None
        self._latest_s = 0.0
        self._adopt(model)
        self._state: LiveState = self._path.init()

    def _adopt(self, model: Model) -> None:
        self.model = model
        self._rows = RowEncoder(model.encoder)
        self._path = LivePath(
            model.committee,
            model.threshold,
            model.memory_size,
            self.config.slots,
            size=self.config.batch,
            specs=model.specs,
            answering=self.config.answering,
        )
        self._run = self._path.compiled()

    def swap(self, model: Model) -> None:
        """Another model from the next event on. What members remember means nothing to it and is forgotten; statistics
        of processes, earlier answers and who is suspicious stay."""
        before = self._state
        self._adopt(model)
        blank = self._path.init()
        self._state = replace(blank, rolling=before.rolling, response=before.response, parent=before.parent)

    @property
    def remembered(self) -> int:
        """Processes that have a place."""
        return len(self._processes)

    @property
    def pinned(self) -> int:
        """Processes that keep theirs whoever asks."""
        return self._processes.pinned

    def warm(self) -> None:
        """Compiles what decides, so that the first events do not wait for it; changes nothing."""
        self._part(())

    def decide(
        self, events: Sequence[LiveEvent], answered: Sequence[int] | None = None
    ) -> list[LiveDecision]:
        """The decisions on events, in their order.

        Args:
            events: any number.
            answered: the verdict on each, where others gave it: votes and all else are those of the committee here, and
                what it remembers is what was answered.

        Raises:
            UsageError: others' verdicts, and a shield that would have to keep count of its own.
        """
        if answered is not None and self.model.committee.shield is not None:
            raise UsageError(
                "a committee behind a shield cannot follow others' verdicts; serve it without one"
            )
        decisions: list[LiveDecision] = []
        while (done := len(decisions)) < len(events):
            part = slice(done, done + self.config.batch)
            decisions += self._part(events[part], None if answered is None else answered[part])
        return decisions

    def mark(self) -> Mark:
        """What is known now, to go back to."""
        return Mark(
            counters=dict(self.counters),
            processes=self._processes.copy(),
            evidence=dict(self._evidence),
            start_ns=self._start_ns,
            latest_s=self._latest_s,
            state=_copied(self._state),
        )

    def back(self, mark: Mark) -> None:
        """Forgets what came after a mark of this engine; the mark is used up."""
        self.counters = dict(mark.counters)
        self._processes, self._evidence = mark.processes, dict(mark.evidence)
        self._start_ns, self._latest_s, self._state = mark.start_ns, mark.latest_s, mark.state

    def _part(self, events: Sequence[LiveEvent], answered: Sequence[int] | None = None) -> list[LiveDecision]:
        """As many of the first events as can be given a place before it is known how suspicious they are."""
        times, places, before_s = [], [], self._latest_s
        used: set[int] = set()
        for event in events:
            now_s = self._time_of(event)
            self._processes.pass_time(now_s)
            if self._processes.victim(event.host, event.subject) in used:
                break  # whether it may go depends on an answer of this very part
            place = self._processes.place(event.host, event.subject, event.parent)
            used.add(place.slot)
            times.append(now_s)
            places.append(place)
            self._count(event, place)
        events = events[: len(places)]
        given = [-1] * len(places) if answered is None else answered[: len(places)]
        self._state, answers = self._run(
            self._state, self._batch(events, places, times, before_s, given), len(places)
        )
        return self._explained(events, places, times, jax.tree.map(np.asarray, answers))

    def _time_of(self, event: LiveEvent) -> float:
        """Seconds since the start, never less than before."""
        if self._start_ns is None:
            self._start_ns = event.time_ns
        own_s = (event.time_ns - self._start_ns) * 1e-9
        return max(float(np.float32(own_s)), self._latest_s)

    def _count(self, event: LiveEvent, place: Place) -> None:
        assert self._start_ns is not None
        own_s = float(np.float32((event.time_ns - self._start_ns) * 1e-9))
        self.counters["events"] += 1
        self.counters["from_the_past"] += own_s < self._latest_s
        self.counters["late"] += own_s < self._latest_s - _LATE_S
        self.counters["without_memory"] += place.slot == self._processes.apart
        self._latest_s = max(own_s, self._latest_s)

    def _batch(
        self,
        events: Sequence[LiveEvent],
        places: Sequence[Place],
        times: Sequence[float],
        before_s: float,
        answered: Sequence[int],
    ) -> LiveBatch:
        rows = [
            {**event.attributes, "kind": event.kind, "host": event.host, "subject": event.subject}
            for event in events
        ]
        category, numeric = self._rows.encode(rows)

        def padded(values: Any, dtype: Any) -> np.ndarray:
            own = np.asarray(values, dtype)
            array = np.zeros((self.config.batch, *own.shape[1:]), dtype)
            array[: len(own)] = own
            return array

        return LiveBatch(
            category=padded(category, np.int32),
            numeric=padded(numeric, np.float32),
            event_class=padded([event_class_of(event.kind) for event in events], np.int32),
            slot=padded([place.slot for place in places], np.int32),
            source=padded([place.source for place in places], np.int32),
            fresh=padded([place.fresh for place in places], bool),
            parent=padded([place.parent for place in places], np.int32),
            time_s=padded(times, np.float32),
            before_s=padded([before_s, *times][: len(times)], np.float32),
            answered=padded(answered, np.int32),
        )

    def _explained(
        self,
        events: Sequence[LiveEvent],
        places: Sequence[Place],
        times: Sequence[float],
        answers: LiveAnswers,
    ) -> list[LiveDecision]:
        """Decisions as records; what was answered with alert or more is kept in memory."""
        names, model = [each.name for each in self.model.specs], self.model.digest
        told = {name: getattr(answers, name)[: len(events)].tolist() for name in _TOLD}
        found = []
        for event, place, time_s, verdict, votes, quorum, score, shielded_, robustness in zip(
            events, places, times, *told.values(), strict=True
        ):
            if verdict >= Verdict.ALERT:
                self._processes.pin(place.slot, time_s + self.config.suspicion_s)
            found.append(
                LiveDecision(
                    event_id=event.id,
                    time_ns=event.time_ns,
                    host=event.host,
                    subject=event.subject,
                    verdict=_VERDICTS[verdict],
                    votes=tuple([_VERDICTS[vote] for vote in votes]),
                    quorum=quorum,
                    score=score,
                    shielded=shielded_,
                    robustness={n: r for n, r in zip(names, robustness, strict=True) if r == r},
                    evidence=self._evidence_of(event, place),
                    model=model,
                )
            )
        self._rebase()
        return found

    def _evidence_of(self, event: LiveEvent, place: Place) -> tuple[str, ...]:
        if place.slot == self._processes.apart:
            return (event.id,)
        before = () if place.fresh else self._evidence[place.slot]
        self._evidence[place.slot] = (*before, event.id)[-_EVIDENCE:]
        return self._evidence[place.slot]

    def _rebase(self) -> None:
        """Sets the start later where so much time has passed that float32 would lose milliseconds."""
        if self._latest_s < 2 * _REBASE_S:
            return
        assert self._start_ns is not None
        by_s = _REBASE_S * (self._latest_s // _REBASE_S)
        self._start_ns += round(by_s * 1e9)
        self._latest_s -= by_s
        self._processes.shift_time(by_s)
        state, shift = self._state, np.float32(by_s)
        rolling, response = state.rolling, state.response
        self._state = replace(
            state,
            rolling=replace(rolling, first_s=rolling.first_s - shift, last_s=rolling.last_s - shift),
            response=replace(
                response,
                silent_until_s=response.silent_until_s - shift,
                ticket_done_s=response.ticket_done_s - shift,
                analyst_free_s=response.analyst_free_s - shift,
            ),
        )

    def save(self, path: Path, **about: Any) -> None:
        """Writes all that ``restore`` needs, whole or not at all.

        Args:
            path: file.
            about: what else to keep, as JSON: the ledger's height, say.
        """
        head = {
            "about": about,
            "model": self.model.digest,
            "config": asdict(self.config),
            "counters": self.counters,
            "processes": self._processes.to_dict(),
            "evidence": [[slot, list(ids)] for slot, ids in self._evidence.items()],
            "start_ns": self._start_ns,
            "latest_s": self._latest_s,
        }
        write_snapshot(path, head, self._state)

    def restore(self, path: Path) -> dict[str, Any]:
        """Goes on from a snapshot of the same model and bounds.

        Returns:
            What ``save`` was told to keep.

        Raises:
            RunError: a damaged snapshot, or one of another model or other bounds.
        """
        head, state = read_snapshot(path, lambda head: self._fitting(path, head))
        self.counters |= head["counters"]
        self._processes = Processes.from_dict(head["processes"])
        self._evidence = {int(slot): tuple(ids) for slot, ids in head["evidence"]}
        self._start_ns, self._latest_s = head["start_ns"], head["latest_s"]
        self._state = state
        return dict(head["about"])

    def _fitting(self, path: Path, head: Mapping[str, Any]) -> LiveState:
        """A state of this model's shape, where the snapshot is of it."""
        if head["model"] != self.model.digest or head["config"] != asdict(self.config):
            raise RunError(
                f"{path}: a snapshot of another model or other bounds; delete it to start from the ledger"
            )
        return self._path.init()


def _copied(state: LiveState) -> LiveState:
    return jax.tree.map(lambda leaf: leaf.copy(), state)
