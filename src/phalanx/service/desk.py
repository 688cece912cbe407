"""The desk where events become decisions: decided, written down, acknowledged; one thread at a time.

The ledger is the one truth. What is acknowledged is in it; the engine's state, what is in force and the index for
queries all follow from it, and are brought up to it at every start (a snapshot only shortens the way).
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, RunError
from phalanx.service.clock import Clock
from phalanx.service.commands import Command, commands_of
from phalanx.service.engine import Engine, EngineConfig
from phalanx.service.ledger import Ledger, LedgerFullError, read_entries
from phalanx.service.ledger_bodies import batch_body, decisions_of, events_of
from phalanx.service.model import Model
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.safety import Outcome, Safety

__all__ = ["Answer", "Desk", "DeskConfig"]

_LOG = logging.getLogger("phalanx")
_STATE = "state"
_HEAVY = 100_000


@dataclass(frozen=True)
class Answer:
    """What became of one event.

    Attributes:
        decision: the committee's.
        height: of the ledger's entry that holds it.
        outcome: what takes effect.
        repeated: whether it had been decided before.
    """

    decision: LiveDecision
    height: int
    outcome: Outcome
    repeated: bool = False


@dataclass(frozen=True)
class DeskConfig:
    """Settings of the desk.

    Attributes:
        engine: bounds of the memory.
        snapshot_every: events between snapshots: what a restart has to decide again, at most about that many.
        remembered: ids of decided events that are known again.
    """

    engine: EngineConfig = EngineConfig()
    snapshot_every: int = 50_000
    remembered: int = 100_000


class Desk:
    """Decides events and keeps the ledger. For one thread at a time.

    Args:
        folder: of the snapshot.
        ledger: open for appending; its folder is read at the start.
        ledger_folder: where that is.
        model: who decides.
        policy: the limits of what takes effect.
        clock: the time, for what takes effect.
        config: settings.
        send: takes the commands that are to be sent, in order; at a start it gets those again that ``sent`` says it
            has not, and knows those it has by their keys.
        index: takes each decided batch, with its height; for queries. At a start it gets those again that ``indexed``
            says it has not.
        indexed: the last height that the index has.
        sent: the last height whose commands were taken.

    Raises:
        RunError: the ledger holds decisions that this model does not come to again.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        ledger_folder: Path,
        model: Model,
        policy: SafetyPolicy,
        clock: Clock,
        *,
        config: DeskConfig = DeskConfig(),
        send: Callable[[Sequence[Command]], None] = lambda commands: None,
        index: Callable[[int, Sequence[LiveEvent], Sequence[LiveDecision], Sequence[Outcome | None]], None]
        | None = None,
        indexed: int = 0,
        sent: int = 0,
    ) -> None:
        self.ledger, self.config = ledger, config
        self._folder, self._ledger_folder = folder, ledger_folder
        self._model, self._send, self._index = model, send, index
        self._known: OrderedDict[str, tuple[int, LiveDecision]] = OrderedDict()
        self._since_snapshot = 0
        self.engine: Engine
        bodies = self._catch_up(indexed)
        self.safety = Safety.replay((body for _, body in bodies), policy, clock, journal=self._journal)
        for height, body in bodies:
            if height > sent:
                self._send(commands_of(body))
        self._send(self.safety.tick())

    @property
    def mode(self) -> str:
        """``shadow`` or ``enforce``."""
        return "shadow" if self.safety.shadow else "enforce"

    def decide(self, events: Sequence[LiveEvent]) -> list[Answer]:
        """Decides events; when this returns, the answers survive the process.

        Args:
            events: at most as many as the engine's batch. One whose id was decided before gets that decision again.

        Raises:
            LedgerFullError: nothing was decided; later it may.
            LedgerBrokenError: nothing can be decided until the service is started anew.
        """
        fresh = {event.id: event for event in reversed(events) if event.id not in self._known}
        new = [event for event in events if fresh.pop(event.id, None) is not None]
        outcomes: dict[str, Outcome] = {}
        if new:
            decisions = self.engine.decide(new)
            f = self._model.committee.f
            try:
                entry = self.ledger.append("batch", batch_body(new, decisions, f=f, mode=self.mode))
            except LedgerFullError:
                self._catch_up(None)  # what was decided and not written down never was
                raise
            self._remember(entry.height, decisions)
            for event, decision in zip(new, decisions, strict=True):
                outcomes[event.id] = self._considered(decision, event, entry.height)
            if self._index is not None:
                self._index(entry.height, new, decisions, [outcomes[event.id] for event in new])
            self._since_snapshot += len(new)
            if self._since_snapshot >= self.config.snapshot_every:
                self.snapshot()
        answers = []
        for event in events:
            height, decision = self._known[event.id]
            outcome = outcomes.pop(event.id, None)
            # a client that got no answer asks again: what had not been considered then is now, and nothing twice
            answers.append(
                Answer(
                    decision, height, outcome or self._considered(decision, event, height), outcome is None
                )
            )
        return answers

    def _considered(self, decision: LiveDecision, event: LiveEvent, height: int) -> Outcome:
        outcome = self.safety.consider(decision, event, height)
        self._send(outcome.commands)
        return outcome

    def act(self, action: Callable[[Safety], Sequence[Command]]) -> None:
        """What an operator does, and sends what follows from it."""
        self._send(action(self.safety))

    def snapshot(self) -> None:
        """Keeps the engine's state, so that a restart need not begin at the ledger's first entry."""
        self.engine.save(self._folder / _STATE, height=self.ledger.head.height, hash=self.ledger.head.hash)
        self._since_snapshot = 0

    def _remember(self, height: int, decisions: Sequence[LiveDecision]) -> None:
        for decision in decisions:
            self._known[decision.event_id] = (height, decision)
        while len(self._known) > self.config.remembered:
            self._known.popitem(last=False)

    def _journal(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        self.ledger.append_many([("operator", body) for body in bodies])

    def _catch_up(self, indexed: int | None) -> list[tuple[int, Mapping[str, Any]]]:
        """Brings the engine to the ledger's head.

        Args:
            indexed: the last height that the index has; None: it has all.

        Returns:
            What operators and rules did, from the first, with the heights of the entries.
        """
        self.engine = Engine(self._model, self.config.engine)
        begin, decided = self._restored(), 0
        bodies: list[tuple[int, Mapping[str, Any]]] = []
        heights = {begin.get("height", 0): begin.get("hash")}
        for entry in read_entries(self._ledger_folder):
            if entry.height in heights and heights[entry.height] != entry.hash:
                raise RunError(f"{self._folder / _STATE}: a snapshot of another ledger; delete it")
            if entry.kind == "operator":
                bodies.append((entry.height, entry.body))
            if entry.kind == "model":
                self._check_model(entry.body)
            if entry.kind != "batch":
                continue
            events, decisions = events_of(entry.body), decisions_of(entry.body)
            self._remember(entry.height, decisions)
            if self._index is not None and indexed is not None and entry.height > indexed:
                self._index(entry.height, events, decisions, [None] * len(events))
            if entry.height > begin.get("height", 0) and decisions[0].model == self._model.digest:
                decided += len(events)
                self._decide_again(entry.height, events, decisions)
        self._since_snapshot = decided
        if decided >= _HEAVY:
            self.snapshot()
        return bodies

    def _restored(self) -> dict[str, Any]:
        """Where the snapshot is, if there is one that fits."""
        path = self._folder / _STATE
        if not path.exists():
            return {}
        try:
            about = self.engine.restore(path)
        except RunError as problem:
            _LOG.warning("%s; the ledger is replayed from its beginning", problem)
            self.engine = Engine(self._model, self.config.engine)
            return {}
        return about if about["height"] <= self.ledger.head.height else {}

    def _check_model(self, body: Mapping[str, Any]) -> None:
        if not isinstance(body.get("digest"), str):
            raise DataError("a model's entry of the ledger names none. Verify it: phalanx ledger verify")

    def _decide_again(
        self, height: int, events: Sequence[LiveEvent], decisions: Sequence[LiveDecision]
    ) -> None:
        again = self.engine.decide(events)
        for event, then, now in zip(events, decisions, again, strict=True):
            if (then.verdict, then.votes) != (now.verdict, now.votes):
                raise RunError(
                    f"the ledger's decision on event {event.id!r} at height {height} is {then.verdict.name.lower()}; "
                    f"the same model now comes to {now.verdict.name.lower()}. Other versions of JAX or another machine "
                    "compute otherwise: start a new folder for this one"
                )
