"""The desk where events become decisions: decided, written down, acknowledged; one thread at a time.

The ledger is the one truth. What is acknowledged is in it; the engine's state, what is in force and the index for
queries all follow from it, and are brought up to it at every start (a snapshot only shortens the way).
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, RunError, UsageError
from phalanx.service.clock import Clock
from phalanx.service.commands import Command, commands_of
from phalanx.service.engine import Engine, EngineConfig
from phalanx.service.known import Known
from phalanx.service.ledger import Ledger, LedgerFullError, read_entries
from phalanx.service.ledger_bodies import batch_body, counted, decisions_of, events_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.model import Model
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent, content_hash
from phalanx.service.remote import Remote, merged, told_of, without_quorum
from phalanx.service.safety import Outcome, Safety
from phalanx.verdicts import Verdict

__all__ = ["Answer", "Desk", "DeskConfig"]

_LOG = logging.getLogger("phalanx")
_STATE = "state"
_HEAVY = 100_000
_AT_ONCE = 64  # entries of a network that are taken before anything else gets its turn


@dataclass(frozen=True)
class Answer:
    """What became of one event.

    Attributes:
        decision: the committee's.
        height: of the ledger's entry that holds it.
        outcome: what takes effect.
        repeated: whether it had been decided before.
        another: whether what was decided under this id is another event.
    """

    decision: LiveDecision
    height: int
    outcome: Outcome
    repeated: bool = False
    another: bool = False


@dataclass(frozen=True)
class DeskConfig:
    """Settings of the desk.

    Attributes:
        engine: bounds of the memory.
        snapshot_every: events between snapshots: what a restart has to decide again, at most about that many.
        remembered: of the latest events, whose decisions are in memory, at least; ``Recall`` finds older ones.
    """

    engine: EngineConfig = EngineConfig()
    snapshot_every: int = 50_000
    remembered: int = 50_000


class Desk:
    """Decides events and keeps the ledger. For one thread at a time.

    Where a network of nodes decides, verdicts and votes are the network's; the committee here follows them and says the
    rest: scores, robustness, evidence. What the network does not answer in time is an alert without a quorum, and the
    network's decision, should it come, takes its place.

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
        network: who decides, where that is not the committee here.
        opening: kinds and bodies of entries that the ledger gets once it was read and nothing refused the start.

    Attributes:
        known: decisions on the latest events; none is let go of while ``decide`` answers.

    Raises:
        RunError: the ledger holds decisions that this model does not come to again.
        UsageError: the ledger is one of a network's decisions, and none is given, or the other way round.
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
        network: Remote | None = None,
        opening: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        self.ledger, self.config = ledger, config
        self._folder, self._ledger_folder = folder, ledger_folder
        self._model, self._send, self._index = model, send, index
        self.known = Known(config.remembered)
        self._due: deque[tuple[int, LiveEvent, LiveDecision]] = deque()  # written down, not considered yet
        self._since_snapshot = 0
        self._network, self._network_height, self._accused = network, 0, 0
        self.engine: Engine
        bodies = self._catch_up(indexed)
        self.safety = Safety.replay((body for _, body in bodies), policy, clock, journal=self._journal)
        ledger.append_many(opening)
        # at once: whoever takes some of them counts all as taken
        self._send([command for height, body in bodies if height > sent for command in commands_of(body)])
        self._send(self.safety.tick())
        with contextlib.suppress(LedgerFullError):
            self._consider_due()
        if network is not None:
            network.begin(self._network_height)

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
        self._consider_due()
        fresh = {event.id: event for event in reversed(events) if event.id not in self.known}
        new = [event for event in events if fresh.pop(event.id, None) is not None]
        outcomes: dict[str, Outcome] = {}
        if new:
            outcomes = (
                self._decided_here(new) if self._network is None else self._decided_there(self._network, new)
            )
        answers = []
        for event in events:
            height, decision, content = self.known[event.id]
            outcome = outcomes.pop(event.id, None)
            # else it is what was decided just now
            another = (outcome is None or self._network is not None) and content != content_hash(event)
            repeated = outcome is None or another  # whatever it says now, it is not judged
            outcome = outcome or self.safety.outcome_of(decision, height)
            answers.append(Answer(decision, height, outcome, repeated, another))
        self.known.let_go()
        return answers

    def tick(self) -> None:
        """What is to be done now and then: ends what is over, takes what a network decided meanwhile."""
        with contextlib.suppress(LedgerFullError):  # what was decided waits for room
            self._consider_due()
            if self._network is not None:
                self._look(self._network)
        self.known.let_go()
        self.act(lambda safety: safety.tick())

    def _look(self, network: Remote) -> None:
        for _ in range(_AT_ONCE):
            if self._take_next(network, 0.0) is None:
                break
        for body in network.evidence()[self._accused :]:
            self._accused += 1
            try:
                self.ledger.append_many([("evidence", body)])
            except DataError as problem:  # it is for people, and must not stop what it accuses
                _LOG.error("evidence against a member cannot be kept: %s", problem)
            self.act(lambda safety, who=body["member"]: safety.page("evidence", why=f"member {who}"))

    def _decided_here(self, events: Sequence[LiveEvent]) -> dict[str, Outcome]:
        decisions = self.engine.decide(events)
        try:
            return self._written(events, decisions, self._model.committee.f)
        except LedgerFullError:
            if events[0].id not in self.known:
                self._catch_up(None)  # what was decided and not written down never was
            raise

    def _decided_there(self, network: Remote, events: Sequence[LiveEvent]) -> dict[str, Outcome]:
        """The network's decisions; without a quorum, an alert on each event."""
        outcomes: dict[str, Outcome] = {}
        missing = {event.id: event for event in events}
        refused = network.ask(events)
        deadline, late = time.monotonic() + (0.0 if network.out else network.patience_s), 0
        while len(missing) > len(refused) and late < _AT_ONCE:
            left_s = deadline - time.monotonic()
            late += left_s <= 0.0
            taken = self._take_next(network, left_s)
            if taken is None:
                break
            ids, led_to = taken
            outcomes |= led_to
            for name in ids:
                missing.pop(name, None)
        if len(missing) > len(refused):
            network.lost()
        if missing:
            left = list(missing.values())
            alerts = [without_quorum(event, network.n, network.f) for event in left]
            outcomes |= self._written(left, alerts, network.f)
        return outcomes

    def _take_next(self, network: Remote, wait_s: float) -> tuple[list[str], dict[str, Outcome]] | None:
        """Takes the network's next entry; None where there is none in time.

        Returns:
            The ids of its events, and what those led to that had no decision of a quorum before.
        """
        entry = network.next(wait_s)
        if entry is None:
            return None
        events, told = events_of(entry.body), decisions_of(entry.body)
        again, seen = [], set()
        for place, (event, each) in enumerate(zip(events, told, strict=True)):
            known = self.known.get(event.id)
            if event.id in seen or (known is not None and (known[1].quorum or not each.quorum)):
                again.append(place)
            seen.add(event.id)
        before = self.engine.mark()
        here = self.engine.decide(events, [int(decision.verdict) for decision in told])
        try:
            outcomes = self._written(
                events, merged(told, here), network.f, told_of(entry, again), done=network.done
            )
        except LedgerFullError:
            if network.next(0.0) is entry:  # nothing was written down
                self.engine.back(before)
            raise
        return [event.id for event in events], outcomes

    def _written(
        self,
        events: Sequence[LiveEvent],
        decisions: Sequence[LiveDecision],
        f: int,
        consensus: Mapping[str, Any] | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> dict[str, Outcome]:
        """Writes a batch down, and what its decisions lead to.

        Args:
            events, decisions, f, consensus: see ``batch_body``.
            done: called once it is written down.
        """
        body = batch_body(events, decisions, f=f, mode=self.mode, consensus=consensus)
        entry = self.ledger.append("batch", body)
        done()
        events, decisions = counted(entry.body, events, decisions)
        self._remember(entry.height, events, decisions)
        self._due += [(entry.height, *each) for each in zip(events, decisions, strict=True)]
        outcomes: dict[str, Outcome] = {}
        try:
            outcomes = self._consider_due()
        finally:
            if self._index is not None:
                self._index(entry.height, events, decisions, [outcomes.get(event.id) for event in events])
        self._since_snapshot += len(events)
        if self._since_snapshot >= self.config.snapshot_every:
            self._snapshot_if_possible()
        return outcomes

    def _consider_due(self) -> dict[str, Outcome]:
        """What is written down and was not considered yet leads to, in order; what cannot be written down stays due."""
        outcomes: dict[str, Outcome] = {}
        height = 0
        while self._due:
            height, event, decision = self._due[0]
            outcomes[event.id] = outcome = self.safety.consider(decision, event, height)
            self._send(outcome.commands)
            self._due.popleft()
        if height:
            self.safety.conclude(height)
        return outcomes

    def act(self, action: Callable[[Safety], Sequence[Command]]) -> None:
        """What an operator does, and sends what follows from it; also of what was asked and is refused."""
        try:
            commands = action(self.safety)
        except UsageError:
            self._send(self.safety.tick())
            raise
        self._send(commands)

    def snapshot(self) -> None:
        """Keeps the engine's state, so that a restart need not begin at the ledger's first entry."""
        self.ledger.sync()  # or, after a power cut, it would be ahead
        self.engine.save(self._folder / _STATE, height=self.ledger.head.height, hash=self.ledger.head.hash)
        self._since_snapshot = 0

    def _snapshot_if_possible(self) -> None:
        try:
            self.snapshot()
        except (OSError, DataError) as problem:  # it only shortens the next start
            _LOG.error("no snapshot: %s", problem)
            self._since_snapshot = 0

    def _remember(self, height: int, events: Sequence[LiveEvent], decisions: Sequence[LiveDecision]) -> None:
        for event, decision in zip(events, decisions, strict=True):
            self.known.put(event.id, height, decision, content_hash(event))

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
        self._due.clear()
        begin, decided = self._restored(), 0
        bodies: list[tuple[int, Mapping[str, Any]]] = []
        heights = {begin.get("height", 0): begin.get("hash")}
        # where nothing but the engine has to come back, what came before its snapshot need not be read again
        first = 1 if indexed is not None else max(1, begin.get("height", 0))
        for entry in read_entries(self._ledger_folder, first):
            if entry.height in heights and heights[entry.height] != entry.hash:
                raise RunError(f"{self._folder / _STATE}: a snapshot of another ledger; delete it")
            if entry.kind == "operator":
                bodies.append((entry.height, entry.body))
                considered = entry.body.get("height", 0) + (entry.body["act"] == "considered")
                while self._due and self._due[0][0] < considered:
                    self._due.popleft()
            if entry.kind == "model":
                self._check_model(entry.body)
            if entry.kind != "batch":
                continue
            events, decisions = events_of(entry.body), decisions_of(entry.body)
            if self._again(entry, events, decisions, entry.height > begin.get("height", 0)):
                decided += len(events)
            events, decisions = counted(entry.body, events, decisions)
            self._remember(entry.height, events, decisions)
            self.known.let_go()
            self._due += [
                (entry.height, event, decision)
                for event, decision in zip(events, decisions, strict=True)
                if decision.verdict is not Verdict.ALLOW or not decision.quorum
            ]
            if self._index is not None and indexed is not None and entry.height > indexed:
                self._index(entry.height, events, decisions, [None] * len(events))
        self._since_snapshot = decided
        if decided >= _HEAVY:
            self._snapshot_if_possible()
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
        if about["height"] > self.ledger.head.height:  # of entries that power cut off, say
            _LOG.warning("%s: ahead of the ledger, which is replayed from its beginning", path)
            self.engine = Engine(self._model, self.config.engine)
            return {}
        return about

    def _check_model(self, body: Mapping[str, Any]) -> None:
        if not isinstance(body.get("digest"), str):
            raise DataError("a model's entry of the ledger names none. Verify it: phalanx ledger verify")

    def _again(
        self, entry: Entry, events: Sequence[LiveEvent], decisions: Sequence[LiveDecision], wanted: bool
    ) -> bool:
        """Whether a batch of the ledger was gone through again: one that the engine has not remembered."""
        told = entry.body.get("consensus")
        if self._network is None:
            if told is not None:
                raise UsageError(
                    f"{self._ledger_folder}: decisions of a network of nodes; go on with `phalanx up`"
                )
            if wanted and decisions[0].model == self._model.digest:
                self._decide_again(entry.height, events, decisions)
                return True
            return False
        if told is None:
            if any(decision.quorum for decision in decisions):
                raise UsageError(
                    f"{self._ledger_folder}: decisions of one process; go on with `phalanx serve`"
                )
            return False  # what only the gateway answered, the committee does not know of
        self._network_height = told["height"]
        if wanted:
            self.engine.decide(events, [int(decision.verdict) for decision in decisions])
        return wanted

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
