"""Desks for tests: one without a committee, whose hands the test moves; real ones over a folder."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from service.hands import Hands

from phalanx.service.clock import Clock
from phalanx.service.commands import Command
from phalanx.service.desk import Answer, Desk, DeskConfig
from phalanx.service.engine import EngineConfig
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.model import Model
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent, content_hash
from phalanx.service.safety import Safety
from phalanx.types import Verdict

__all__ = ["HandDesk", "decision", "event", "open_desk"]


SHADOW = SafetyPolicy()


def event(number: int | str, **attributes: Any) -> LiveEvent:
    """An event with that id."""
    return LiveEvent(f"e{number}", 10**18, "h", "p", "READ", attributes=attributes)


def decision(of: LiveEvent) -> LiveDecision:
    """A unanimous decision on it: what its attribute ``want`` says, else to allow it."""
    votes = (Verdict[str(of.attributes.get("want", "allow")).upper()],) * 4
    return LiveDecision(
        of.id, of.time_ns, of.host, of.subject, votes[0], votes, True, 0.1, False, {}, (of.id,), "m"
    )


class HandDesk(Desk):
    """Answers at once, or when told to; fails when told to; keeps what it was asked."""

    def __init__(self, policy: SafetyPolicy = SHADOW) -> None:
        self.batches: list[list[str]] = []
        self.errors: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.snapshots = 0
        self.safety = Safety(policy, Hands())
        self.known: dict[str, tuple[int, LiveDecision, LiveEvent]] = {}
        self.ledger: Any = SimpleNamespace(
            head=SimpleNamespace(height=0, to_json=dict), synced=0, torn=0, broken=None
        )
        self.engine: Any = SimpleNamespace(
            remembered=0, pinned=0, counters={}, model=SimpleNamespace(digest="m")
        )

    def decide(self, events: Sequence[LiveEvent]) -> list[Answer]:
        self.gate.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append([each.id for each in events])
        self.ledger.head.height += 1
        return [self._answer(each) for each in events]

    def _answer(self, of: LiveEvent) -> Answer:
        repeated = of.id in self.known
        height, decided, first = self.known.setdefault(of.id, (self.ledger.head.height, decision(of), of))
        another = content_hash(of) != content_hash(first)
        return Answer(decided, height, self.safety.consider(decided, of, height), repeated, another)

    def act(self, action: Callable[[Safety], Sequence[Command]]) -> None:
        action(self.safety)

    def tick(self) -> None:
        self.safety.tick()

    def snapshot(self) -> None:
        self.snapshots += 1


def open_desk(
    folder: Path,
    model: Model,
    config: EngineConfig,
    *,
    policy: SafetyPolicy = SHADOW,
    clock: Clock | None = None,
    **given: Any,
) -> Desk:
    """A desk over a folder, which may be there already; close its ledger."""
    path = folder / "key.pem"
    key = SigningKey.load(path) if path.exists() else SigningKey.create(path)
    ledger = Ledger.open(folder / "ledger", key)
    try:
        return Desk(
            folder,
            ledger,
            folder / "ledger",
            model,
            policy,
            clock or Hands(),
            config=DeskConfig(engine=config),
            **given,
        )
    except BaseException:
        ledger.close()
        raise
