"""Restrictions: what a block or a quarantine takes from a process, for how long, and the states it goes through.

A restriction ends when its deadline has passed by the wall clock or its duration by steady time, whichever is first: a
wall clock set back does not lengthen it, one set forward can only shorten it, and after a restart it has at most what
remained when it was last saved (see ``clock``). Everything here is a value; ``safety`` decides, and keeps them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from phalanx.errors import DataError
from phalanx.service.actors import Actor
from phalanx.service.clock import Moment
from phalanx.service.records import LiveEvent
from phalanx.verdicts import Verdict

__all__ = ["Restriction", "State", "Target", "restriction_id", "target_of"]


class State(StrEnum):
    """Where a restriction is: it is asked for or active at first, and ends in one of the other three."""

    PENDING = "pending"
    ACTIVE = "active"
    LIFTED = "lifted"
    EXPIRED = "expired"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Target:
    """What is restricted.

    Attributes:
        host: where.
        subject: the process. A quarantine takes in its descendants.
        object: what a block keeps from the process; empty for a quarantine.
        kind: of the events that a block denies, where they name no object; else empty.
    """

    host: str
    subject: str
    object: str = ""
    kind: str = ""

    def overlaps(self, other: "Target", ancestors: Sequence[str] = ()) -> bool:
        """Whether the two have something in common, in either direction.

        Args:
            other: the target beside this one.
            ancestors: subjects of this one's parent, its parent's and so on, as far as they are known.

        Example:
            >>> whole, part = Target("h", "p"), Target("h", "p", "/etc/shadow")
            >>> part.overlaps(whole), whole.overlaps(part), part.overlaps(Target("h", "p", "/tmp/x"))
            (True, True, False)
            >>> Target("h", "child").overlaps(whole, ancestors=("p",))
            True
        """
        if self.host != other.host:
            return False
        if self.subject != other.subject:
            return other.whole and other.subject in ancestors
        return self.whole or other.whole or (self.object, self.kind) == (other.object, other.kind)

    def within(self, other: "Target", ancestors: Sequence[str] = ()) -> bool:
        """Whether all of this is part of the other.

        Example:
            >>> whole, part = Target("h", "p"), Target("h", "p", "/etc/shadow")
            >>> part.within(whole), whole.within(part)
            (True, False)
        """
        return self == other or (other.whole and self.overlaps(other, ancestors))

    @property
    def whole(self) -> bool:
        """Whether it is all that the process does."""
        return not self.object and not self.kind

    def as_json(self) -> dict[str, str]:
        """Its attributes, those that are empty left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def target_of(event: LiveEvent, verdict: Verdict) -> Target:
    """What a verdict on an event restricts: a quarantine the process, a block what the event was about.

    The event is about its attribute ``object``, else ``path``; where it has neither, a block denies events of its kind.

    Raises:
        ValueError: the verdict restricts nothing.

    Example:
        >>> event = LiveEvent("e", 0, "web-1", "p7", "WRITE", attributes={"path": "/etc/passwd"})
        >>> target_of(event, Verdict.BLOCK)
        Target(host='web-1', subject='p7', object='/etc/passwd', kind='')
        >>> target_of(event, Verdict.QUARANTINE)
        Target(host='web-1', subject='p7', object='', kind='')
    """
    if verdict < Verdict.BLOCK:
        raise ValueError(f"{verdict.name.lower()} restricts nothing")
    if verdict is Verdict.QUARANTINE:
        return Target(event.host, event.subject)
    named = event.attributes.get("object") or event.attributes.get("path") or ""
    return Target(event.host, event.subject, str(named), "" if named else event.kind)


def restriction_id(event_id: str, height: int, verdict: Verdict, target: Target) -> str:
    """The id of the restriction that a decision leads to: the same for the same decision, and of no other.

    Example:
        >>> restriction_id("e1", 7, Verdict.BLOCK, Target("h", "p", "/x"))
        'r-95f4e021f8bc05622b703f914ead57e5'
    """
    content = json.dumps([event_id, height, int(verdict), target.as_json()], sort_keys=True)
    return "r-" + hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Restriction:
    """One restriction, at one point of its life.

    Attributes:
        id: names it (``restriction_id``).
        target: what is restricted.
        verdict: block or quarantine.
        event_id: of the event that was decided.
        height: of the ledger's entry that holds the decision.
        duration_ns: for how long it is to be active.
        asked: when it came about.
        state: where it is now.
        wait_ns: for how long it waits for approval.
        applied: when it became active.
        ended: when it was lifted, refused or expired.
        by: the operator who approved, refused or lifted it last.
        why: the reason given for it.
        shadow: whether it only would have been: nothing is ever sent for it.
        actor: who acted, for the guards to look at again when it is approved.
    """

    id: str
    target: Target
    verdict: Verdict
    event_id: str
    height: int
    duration_ns: int
    asked: Moment
    state: State = State.PENDING
    wait_ns: int = 0
    applied: Moment | None = None
    ended: Moment | None = None
    by: str = ""
    why: str = ""
    shadow: bool = False
    actor: Actor | None = None

    @property
    def open(self) -> bool:
        """Whether it waits or is active."""
        return self.state in (State.PENDING, State.ACTIVE)

    @property
    def counted(self) -> Moment:
        """The moment from which it counts towards a rate: when it was applied, until then when it was asked for."""
        return self.applied or self.asked

    @property
    def deadline_wall_ns(self) -> int:
        """When it ends at the latest by the wall clock (or stops waiting), in ns since 1970."""
        return self.counted.wall_ns + self._lasts_ns

    def remaining_ns(self, now: Moment) -> int:
        """How long it still is active or waits: the lesser of what the wall clock and what steady time say, 0 at least.

        Example:
            >>> begun = Restriction("r", Target("h", "p"), Verdict.BLOCK, "e", 1, 100, Moment(1_000, 0))
            >>> begun = begun.apply(Moment(1_000, 0))
            >>> [begun.remaining_ns(now) for now in (Moment(1_030, 10), Moment(500, 40), Moment(9_000, 1))]
            [70, 60, 0]
        """
        if not self.open:
            return 0
        by_wall = self.deadline_wall_ns - now.wall_ns
        by_steady = self.counted.steady_ns + self._lasts_ns - now.steady_ns
        return max(0, min(by_wall, by_steady, self._lasts_ns))

    def over(self, now: Moment) -> bool:
        """Whether its time has passed."""
        return self.open and self.remaining_ns(now) == 0

    def apply(self, now: Moment, *, by: str = "", why: str = "") -> "Restriction":
        """It becomes active; from now on its duration runs.

        Raises:
            ValueError: it does not wait.
        """
        self._expect(State.PENDING)
        return dataclasses.replace(self, state=State.ACTIVE, applied=now, by=by, why=why)

    def end(self, state: State, now: Moment, *, by: str = "", why: str = "") -> "Restriction":
        """It ends: refused while it waits, lifted while it is active, expired in either.

        Raises:
            ValueError: that end does not follow on its state.
        """
        follows = {
            State.REFUSED: (State.PENDING,),
            State.LIFTED: (State.ACTIVE,),
            State.EXPIRED: (State.PENDING, State.ACTIVE),
        }
        self._expect(*follows.get(state, ()))
        return dataclasses.replace(self, state=state, ended=now, by=by, why=why)

    def as_json(self) -> dict[str, Any]:
        """Its form in the ledger; ``Restriction.of`` reads it."""
        return {
            "id": self.id,
            "target": self.target.as_json(),
            "verdict": int(self.verdict),
            "event_id": self.event_id,
            "height": self.height,
            "duration_ns": self.duration_ns,
            "asked": self.asked.as_json(),
            "state": self.state.value,
            "wait_ns": self.wait_ns,
            "applied": self.applied and self.applied.as_json(),
            "ended": self.ended and self.ended.as_json(),
            "by": self.by,
            "why": self.why,
            "shadow": self.shadow,
            "actor": self.actor and self.actor.as_json(),
        }

    @staticmethod
    def of(value: Mapping[str, Any]) -> "Restriction":
        """The restriction of its JSON form.

        Raises:
            DataError: a field is missing or is not what it should be.
        """
        try:
            fields = dict(value)
            fields["target"] = Target(**fields["target"])
            fields["verdict"] = Verdict(fields["verdict"])
            fields["state"] = State(fields["state"])
            fields["actor"] = None if fields["actor"] is None else Actor.of(fields["actor"])
            fields["asked"] = Moment.of(fields["asked"])
            for name in ("applied", "ended"):
                fields[name] = None if fields[name] is None else Moment.of(fields[name])
            return Restriction(**fields)
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(
                f"not a restriction: {problem} ({str(value)[:200]}). The ledger is damaged: verify it"
            ) from problem

    @property
    def _lasts_ns(self) -> int:
        return self.wait_ns if self.state is State.PENDING else self.duration_ns

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise ValueError(
                f"restriction {self.id} is {self.state}; expected {' or '.join(states) or 'no end'}"
            )
