"""What safety remembers: the fold of its journal.

Every change is a body, a JSON object that goes into the ledger as an entry of kind ``operator`` before it takes effect.
Folding the bodies in their order rebuilds the state at any point, and ``commands.commands_of`` says what each of them
sends. So after a kill nothing is forgotten, and what was sent already is recognised by its key.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from phalanx.errors import DataError
from phalanx.service.clock import SECOND_NS, Moment
from phalanx.service.guards import AllowRule
from phalanx.service.policy import RATE_WINDOW_S
from phalanx.service.restrictions import Restriction, State

__all__ = ["MODE_ACTS", "RESTRICTION_ACTS", "Body", "Books", "Effect", "SafetyState"]

Body = dict[str, Any]
"""One change of the state; ``act`` says of what sort, ``at`` when."""

_KEPT_NS = 86_400 * SECOND_NS  # ended restrictions are remembered for the longest cooldown there can be
_REMEMBERED = 4_096  # outcomes, so that a decision that comes twice is recognised

RESTRICTION_ACTS = ("restrict", "approve", "refuse", "lift", "expire")
"""Acts of bodies that hold a restriction as it then is."""

MODE_ACTS = ("shadow", "enforce", "kill", "release")
"""Acts of bodies that change what may take effect."""


class Effect(StrEnum):
    """What a decision leads to."""

    NONE = "none"
    ALERT = "alert"
    ASK = "ask"
    BLOCK = "block"
    QUARANTINE = "quarantine"


@dataclass
class Books:
    """What took effect, or what would have in shadow mode.

    Attributes:
        restrictions: by id, in the order of their beginning, for as long as they matter.
        open: host -> id -> those that wait or are active.
        freed: host -> id -> those that an operator, or a rule on approval, put an end to.
        alerts: (host, subject) -> steady ns of the latest alert.
        alert_times: steady ns of each alert of the last hour.
    """

    restrictions: dict[str, Restriction] = field(default_factory=dict)
    open: dict[str, dict[str, Restriction]] = field(default_factory=dict)
    freed: dict[str, dict[str, Restriction]] = field(default_factory=dict)
    alerts: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    alert_times: deque[int] = field(default_factory=deque)

    def put(self, restriction: Restriction) -> None:
        """A restriction as it now is, instead of what it was."""
        self.restrictions[restriction.id] = restriction
        freed = restriction.state in (State.LIFTED, State.REFUSED)
        for index, belongs in ((self.open, restriction.open), (self.freed, freed)):
            if belongs:
                index.setdefault(restriction.target.host, {})[restriction.id] = restriction
            else:
                _drop(index, restriction)

    def all_open(self) -> list[Restriction]:
        """All that wait or are active, on all hosts."""
        return [restriction for each in self.open.values() for restriction in each.values()]

    def counted(self, now: Moment) -> Iterator[Restriction]:
        """Those that count towards the rates: applied, or until then asked for, in the last hour."""
        window = RATE_WINDOW_S * SECOND_NS
        for restriction in reversed(self.restrictions.values()):
            if now.steady_ns - restriction.asked.steady_ns >= 2 * window:
                return  # the rest is older still, and none waits for longer than a window
            if now.steady_ns - restriction.counted.steady_ns < window:
                yield restriction

    def alerts_used_up(self, most: int, now: Moment) -> bool:
        """Whether there were as many alerts in the last hour as may be."""
        if not most or len(self.alert_times) < most:
            return not most
        return self.alert_times[-most] > now.steady_ns - RATE_WINDOW_S * SECOND_NS

    def forget(self, at: Moment) -> None:
        """Lets go of what no rule looks at any more."""
        while self.restrictions:
            restriction = next(iter(self.restrictions.values()))
            if restriction.ended is None or at.steady_ns - restriction.ended.steady_ns <= _KEPT_NS:
                break  # what follows is younger
            del self.restrictions[restriction.id]
            _drop(self.freed, restriction)
        while self.alert_times and at.steady_ns - self.alert_times[0] >= RATE_WINDOW_S * SECOND_NS:
            self.alert_times.popleft()
        while self.alerts and at.steady_ns - next(iter(self.alerts.values())) > _KEPT_NS:
            self.alerts.popitem(last=False)


def _drop(index: dict[str, dict[str, Restriction]], restriction: Restriction) -> None:
    """Takes a restriction out of an index by host, if it is there."""
    of_host = index.get(restriction.target.host)
    if of_host is not None and of_host.pop(restriction.id, None) is not None and not of_host:
        del index[restriction.target.host]


@dataclass
class SafetyState:
    """What the journal comes to.

    Attributes:
        real, shadow: what took effect, and what would have.
        killed: whether the kill switch is pulled.
        fallback: why the service fell back into shadow mode, None where it did not.
        allow: rules that operators added, by id.
        outcomes: (height, event id) -> effect, what it would have been, reasons, id of the restriction.
        pages: (reason, host, whether in shadow mode) -> steady ns of the latest page.
        height: the latest that was considered.
        done: up to which height all decisions were, those too that led to nothing.
        last: moment of the latest body.
        bodies: how many were taken in; each has its number ``n``, and one that comes again is passed over.
    """

    real: Books = field(default_factory=Books)
    shadow: Books = field(default_factory=Books)
    killed: bool = False
    fallback: str | None = None
    allow: dict[str, AllowRule] = field(default_factory=dict)
    outcomes: OrderedDict[tuple[int, str], tuple[Effect, Effect, tuple[str, ...], str]] = field(
        default_factory=OrderedDict
    )
    pages: dict[tuple[str, str, bool], int] = field(default_factory=dict)
    height: int = 0
    done: int = 0
    last: Moment | None = None
    bodies: int = 0

    def books(self, shadow: bool) -> Books:
        """Those of shadow mode, or those of what takes effect."""
        return self.shadow if shadow else self.real

    def find(self, restriction_id: str) -> Restriction | None:
        """A restriction that is still remembered, real or not."""
        return self.real.restrictions.get(restriction_id) or self.shadow.restrictions.get(restriction_id)

    def fold(self, body: Mapping[str, Any]) -> None:
        """Takes in one body.

        Raises:
            DataError: it is of no known sort, or damaged.
        """
        try:
            self._fold(body)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(
                f"not a change of safety: {str(body)[:200]} ({problem!r}). The ledger is damaged: verify it"
            ) from problem

    def _fold(self, body: Mapping[str, Any]) -> None:
        if body["n"] <= self.bodies:
            return
        if body["n"] != self.bodies + 1:
            raise ValueError(f"change {body['n']} follows on {self.bodies}")
        act, at = body["act"], Moment.of(body["at"])
        if act in RESTRICTION_ACTS:
            restriction = Restriction.of(body["restriction"])
            self.books(restriction.shadow).put(restriction)
            if act == "restrict":
                self._remember(body, restriction.id)
        elif act == "alert":
            books = self.books(body["shadow"])
            who = (body["host"], body["subject"])
            books.alerts[who] = at.steady_ns
            books.alerts.move_to_end(who)
            books.alert_times.append(at.steady_ns)
            self._remember(body, "")
        elif act == "page":
            self.pages[body["reason"], body["host"], body.get("shadow", False)] = at.steady_ns
        elif act == "kill" or act == "release":
            self.killed = act == "kill"
        elif act == "shadow" or act == "enforce":
            self.fallback = body["why"] if act == "shadow" else None
        elif act == "permit":
            rule = AllowRule.of(body["rule"])
            self.allow[rule.id] = rule
        elif act == "forbid":
            self.allow.pop(body["id"], None)
        elif act == "considered":
            self.done = max(self.done, body["height"])
        elif act != "clock":
            raise ValueError(f"unknown act {act!r}")
        self.height = max(self.height, body.get("height", 0))
        self.last = at
        self.bodies = body["n"]
        self._forget(at)

    def _remember(self, body: Mapping[str, Any], restriction_id: str) -> None:
        effect, would = Effect(body["effect"]), Effect(body["would"])
        key = (body["height"], body["event"])
        self.outcomes[key] = (effect, would, tuple(body["reasons"]), restriction_id)
        while len(self.outcomes) > _REMEMBERED:
            self.outcomes.popitem(last=False)

    def _forget(self, at: Moment) -> None:
        self.real.forget(at)
        self.shadow.forget(at)
        for key, told in list(self.pages.items()):
            if at.steady_ns - told > _KEPT_NS:
                del self.pages[key]
