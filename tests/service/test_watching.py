"""The watch beside the desk: what it is shown, and when."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.models import many, model

from phalanx.service.desk import Answer, Desk
from phalanx.service.drift import WatchConfig
from phalanx.service.records import LiveDecision
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.watching import Watching
from phalanx.verdicts import Verdict

NOTHING = Outcome(Effect.NONE, Effect.NONE)


class Asked(Desk):
    """A desk that only says what it was asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @property
    def mode(self) -> str:
        return "enforce"

    def act(self, action: Callable[[Any], Any]) -> None:
        action(self)

    def fall_back(self, *, by: str, why: str) -> None:
        self.done.append("fall back")

    def page(self, reason: str, *, why: str) -> None:
        self.done.append(why)


def test_decisions_are_shown_together_and_none_is_left_out(tmp_path: Path) -> None:
    """By a tick, by so many, before labels, when told to; an operator's word outlives what came before it."""
    limits = WatchConfig(reference=16, window=16, persist=1, score=0.4, brier=0, calibration=0)
    watching, desk = Watching(model(), limits, tmp_path / "drift.json"), Asked()
    watching.attach(desk)

    def give(n: int, prefix: str, score: float) -> list[str]:
        events = [replace(event, id=f"{prefix}{i}") for i, event in enumerate(many(n, 4, 0))]
        decisions = [
            LiveDecision(
                e.id, e.time_ns, e.host, e.subject, Verdict.ALLOW, (), True, score, False, {}, (), "m"
            )
            for e in events
        ]
        for again in (False, True):  # what was decided before counts once
            watching.decided(events, [Answer(each, 1, NOTHING, again) for each in decisions])
        return [event.id for event in events]

    def shown() -> list[str]:
        return list(watching.watch._scores)

    names = give(16, "a", 0.1)
    assert shown() == []
    watching.ticked()
    assert shown() == names and not watching.watch.learning
    names += give(300, "b", 0.1)
    assert shown() == names
    give(3, "c", 0.1)
    assert watching.label(desk, [("c2", False), ("none", True)]) == 1
    assert desk.done == []
    give(40, "d", 0.9)
    watching.resumed()
    assert desk.done == [] and watching.watch.learning and watching.notes() == ()
    give(16, "e", 0.1)
    give(16, "f", 0.9)
    assert desk.done == []
    watching.ticked()
    assert desk.done[0] == "fall back" and "distribution" in desk.done[1] and len(desk.done) == 2
    assert watching.notes() == ("drift-score",)
    give(5, "g", 0.9)
    watching.look()
    watching.save()
    assert json.loads((tmp_path / "drift.json").read_text())["watch"]["window"]["counts"][0] == 5
