"""What takes effect of what the committee decided, and what is in force: within limits, undoable, and stopped at once.

Nothing here feeds back into decisions. ``safety_rules`` has the rules. Every change goes to the journal first and is
then taken in (``safety_state``), so that what is in force is always what the journal comes to; what is to be sent
follows from the journal too (``commands``). What frees takes effect even if the journal cannot be written, and is
written as soon as that is possible again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.errors import PhalanxError, UsageError, unknown_name
from phalanx.service.actors import Actor, actor_of
from phalanx.service.clock import SECOND_NS, Clock, Moment, Timeline
from phalanx.service.commands import Command, commands_of
from phalanx.service.guards import AllowRule, Guards
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction, State, Target, restriction_id, target_of
from phalanx.service.safety_rules import Rule, Rules, guards_of
from phalanx.service.safety_state import Body, Effect, SafetyState
from phalanx.verdicts import Verdict

__all__ = ["CONSIDERED", "NOTHING", "Outcome", "Safety"]

_LOG = logging.getLogger("phalanx")
_JUST_NOW_NS = 10_000_000
_SAVED_EVERY_NS = 30 * SECOND_NS  # what a restart with a wrong clock can add to a restriction, at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision led to.

    Attributes:
        effect: what happens.
        would: what would have happened, were the service enforcing.
        reasons: rules that spoke, in their order.
        restriction: id of the restriction, empty where there is none.
        commands: what is to be sent now.
    """

    effect: Effect
    would: Effect
    reasons: tuple[str, ...] = ()
    restriction: str = ""
    commands: tuple[Command, ...] = ()


NOTHING = Outcome(Effect.NONE, Effect.NONE)
"""What allowing leads to; it is not written down."""

CONSIDERED = Outcome(Effect.NONE, Effect.NONE, (Rule.CONSIDERED.value,))
"""Of a decision that was considered before, and of which it is not known any more what it led to."""


class Safety:
    """Decides what takes effect, and keeps what is in force. For one thread at a time.

    Every method returns the commands that are to be sent. If one raises after something ended, the command that says so
    comes with the next call.

    Args:
        policy: the limits.
        clock: the time.
        guards: processes that nothing is done to; those of the policy unless given.
        journal: writes bodies down durably, all of them or none, or raises ``PhalanxError`` or ``OSError``; nothing is
            kept unless given.
        state: where to go on; ``replay`` makes one.

    Attributes:
        policy: the limits.
        state: what is in force; read it, and change it by the methods alone.
        counts: how often each effect (``effect/block``) and each rule (``rule/cooldown``) occurred since the start.

    Example:
        >>> from phalanx.service.clock import SystemClock
        >>> safety = Safety(SafetyPolicy(enforce=True), SystemClock())
        >>> event = LiveEvent("e1", 0, "web-1", "p7", "WRITE", attributes={"path": "/etc/passwd"})
        >>> votes = (Verdict.BLOCK,) * 4
        >>> decision = LiveDecision("e1", 0, "web-1", "p7", Verdict.BLOCK, votes, True, 0.9, False, {}, ("e1",), "m")
        >>> outcome = safety.consider(decision, event, height=1)
        >>> outcome.effect.value, outcome.commands[0].action, safety.consider(decision, event, height=1).commands
        ('block', 'deny', ())
        >>> [command.action for command in safety.undo(outcome.restriction, by="ann", why="a deployment")]
        ['allow']
    """

    def __init__(
        self,
        policy: SafetyPolicy,
        clock: Clock,
        *,
        guards: Guards | None = None,
        journal: Callable[[Sequence[Body]], None] | None = None,
        state: SafetyState | None = None,
    ) -> None:
        self.policy = policy
        self.state = state or SafetyState()
        self.counts: Counter[str] = Counter()
        self._rules = Rules(policy, guards or guards_of(policy), self.state)
        self._journal = journal
        self._timeline = Timeline(clock, self.state.last)
        self._unsaved: list[Body] = []
        self._silent = 0  # the latest height with a decision that led to nothing, of which there is no body
        self._owed: list[Command] = []
        self._settled: Moment | None = None
        for rule in policy.allow:
            rule.check_expiry(self._timeline.now())
            if rule.over(self._timeline.now()):
                _LOG.warning("safety: the allow rule %r is over; delete it or renew it", rule.reason)

    @classmethod
    def replay(
        cls, bodies: Iterable[Mapping[str, Any]], policy: SafetyPolicy, clock: Clock, **given: Any
    ) -> "Safety":
        """Safety as its journal left it; nothing is sent. ``commands.commands_of`` says what each body sent.

        Args:
            bodies: of the journal, from the first.
            policy: the limits from now on.
            clock: the time.
            given: see the constructor.

        Raises:
            DataError: a body is damaged, or one is missing.
        """
        state = SafetyState()
        for body in bodies:
            state.fold(body)
        return cls(policy, clock, state=state, **given)

    @property
    def shadow(self) -> bool:
        """Whether nothing takes effect: the policy does not enforce, or the service fell back."""
        return self._rules.shadow

    def consider(
        self, decision: LiveDecision, event: LiveEvent, height: int, *, ancestors: Sequence[str] = ()
    ) -> Outcome:
        """What a decision leads to, judged now. The same decision again has the same outcome, and sends nothing; one
        that led to nothing is known again once ``conclude`` was called.

        Args:
            decision: the committee's.
            event: that was decided.
            height: of the ledger's entry that holds it; it never descends.
            ancestors: subjects of the process's parent, its parent's and so on, as far as they are known.

        Raises:
            PhalanxError, OSError: the journal could not be written; the decision did not take effect.
        """
        outcome = self._consider(decision, event, height, ancestors)
        self.counts[f"effect/{outcome.effect}"] += 1
        for reason in outcome.reasons:
            self.counts[f"rule/{reason}"] += 1
        return outcome

    def conclude(self, height: int) -> None:
        """All decisions up to a height were considered: none of them is judged again, whatever the time and after any
        restart. To be called after the last one of an entry.
        """
        if self._silent > self.state.done:
            now = self._timeline.now()
            self._commit([{"act": "considered", "at": now.as_json(), "height": height}], frees=True)

    def outcome_of(self, decision: LiveDecision, height: int) -> Outcome:
        """What a decision led to that was considered before, as far as that is known; nothing is judged or sent."""
        if decision.verdict is Verdict.ALLOW and decision.quorum:
            return NOTHING
        known = self.state.outcomes.get((height, decision.event_id))
        return CONSIDERED if known is None else Outcome(*known)

    def tick(self) -> tuple[Command, ...]:
        """Ends what is over. To be called every second or so, and once after a start."""
        self._settle()
        return self._sent()

    def approve(self, restriction_id: str, *, by: str, why: str = "") -> tuple[Command, ...]:
        """An operator lets a restriction begin that waits. Once it has begun, again changes nothing.

        Raises:
            UsageError: there is no such restriction, it does not wait, or a rule forbids it that speaks on approval.
        """
        restriction, now = self._operated(restriction_id, by)
        if restriction.state is not State.ACTIVE:
            if restriction.state is not State.PENDING:
                raise UsageError(
                    f"restriction {restriction_id} is {restriction.state}; nothing waits for approval"
                )
            if self.shadow:
                raise UsageError(f"restriction {restriction_id} cannot begin: the service is in shadow mode")
            against = self._rules.against(restriction, now)
            if against:
                ended = restriction.end(State.REFUSED, now, by=by, why=against)
                self._commit([_of("refuse", now, ended)], frees=True)
                raise UsageError(f"restriction {restriction_id} is refused, not approved: {against}")
            self._commit([_of("approve", now, restriction.apply(now, by=by, why=why))])
        return self._sent()

    def deny(self, restriction_id: str, *, by: str, why: str = "") -> tuple[Command, ...]:
        """An operator refuses a restriction that waits; its target is left alone for the cooldown.

        Raises:
            UsageError: there is no such restriction, or it does not wait.
        """
        return self._end("refuse", State.PENDING, State.REFUSED, restriction_id, by, why)

    def undo(self, restriction_id: str, *, by: str, why: str = "") -> tuple[Command, ...]:
        """An operator lifts a restriction that is active; its target is left alone for the cooldown.

        Raises:
            UsageError: there is no such restriction, or it is not active.
        """
        return self._end("lift", State.ACTIVE, State.LIFTED, restriction_id, by, why)

    def kill(self, *, by: str, why: str = "") -> tuple[Command, ...]:
        """Stops all enforcement and lifts what is in force, until ``release``, over restarts too."""
        self._mode("kill", by, why, wanted=not self.state.killed)
        return self.tick()

    def release(self, *, by: str, why: str = "") -> tuple[Command, ...]:
        """Lets restrictions begin again after ``kill``; what was lifted is left alone for the cooldown."""
        self._mode("release", by, why, wanted=self.state.killed)
        return self._sent()

    def fall_back(self, *, by: str, why: str) -> tuple[Command, ...]:
        """Puts the service into shadow mode until ``enforce``, over restarts; what is in force ends in its time."""
        self._mode("shadow", by, why, wanted=self.state.fallback is None)
        return self._sent()

    def enforce(self, *, by: str, why: str = "") -> tuple[Command, ...]:
        """Ends what ``fall_back`` began.

        Raises:
            UsageError: the service was not started to enforce.
        """
        if not self.policy.enforce:
            raise UsageError("the service was started in shadow mode; start it with --enforce")
        self._mode("enforce", by, why, wanted=self.state.fallback is not None)
        return self._sent()

    def permit(self, rule: AllowRule, *, by: str, why: str = "") -> tuple[Command, ...]:
        """Adds a rule to the allow-list, and frees what it allows.

        Raises:
            UsageError: it is over already, or lasts too long.
        """
        _named(by)
        self._settle()
        now = self._timeline.now()
        rule.check_expiry(now)
        if rule.over(now):
            raise UsageError(f"allow-list: the rule {rule.reason!r} is over already; give a later date")
        bodies: list[Body] = []
        if rule.id not in self.state.allow:
            bodies.append(
                {"act": "permit", "at": now.as_json(), "rule": rule.as_json(), "by": by, "why": why}
            )
        for restriction in self.state.real.all_open():
            if restriction.actor is not None and rule.fits(restriction.actor):
                bodies.append(_freed(restriction, now, f"allow-list: {rule.reason}", by))
        self._commit(bodies, frees=True)
        return self._sent()

    def forbid(self, rule_id: str, *, by: str, why: str = "") -> tuple[Command, ...]:
        """Takes a rule from the allow-list that an operator added.

        Raises:
            UsageError: there is none.
        """
        _named(by)
        if rule_id not in self.state.allow:
            raise unknown_name("allow rule", rule_id, sorted(self.state.allow) or ["(none was added)"])
        at = self._timeline.now().as_json()
        self._commit([{"act": "forbid", "at": at, "id": rule_id, "by": by, "why": why}])
        return self._sent()

    def page(self, reason: str, *, host: str = "", why: str = "") -> tuple[Command, ...]:
        """Calls an operator, unless one was called for the same reason a short while ago.

        Args:
            reason: a short name; the same for the same reason.
            host: where, if it is about one.
            why: for people.
        """
        now = self._timeline.now()
        self._commit(self._paged(reason, now, {"host": host, "why": why}), frees=True)
        return self._sent()

    def _consider(
        self, decision: LiveDecision, event: LiveEvent, height: int, ancestors: Sequence[str]
    ) -> Outcome:
        if decision.verdict is Verdict.ALLOW and decision.quorum:
            return NOTHING
        known = self.state.outcomes.get((height, event.id))
        if known is not None:
            return Outcome(*known)
        if height < self.state.height or height <= self.state.done:
            return CONSIDERED
        actor = actor_of(event, ancestors)
        target = None
        if decision.verdict >= Verdict.BLOCK and decision.quorum:
            target = target_of(event, decision.verdict)
            if (
                not self._settled_just_now()
            ):  # what is over makes room, and its end is sent before the next beginning
                self._settle()
        now = self._timeline.now()
        judged = self._rules.judge(decision, target, actor, now)
        effect = Effect.NONE if self._rules.silent(judged.would) else judged.would
        common: Body = {
            "at": now.as_json(),
            "height": height,
            "event": event.id,
            "host": event.host,
            "subject": event.subject,
        }
        bodies = [each for rule in judged.calls for each in self._paged(rule.value, now, common)]
        decided = common | {
            "effect": effect.value,
            "would": judged.would.value,
            "reasons": [rule.value for rule in judged.reasons],
        }
        restriction = ""
        if judged.would is Effect.ALERT:
            sends = {"shadow": self.shadow, "send": effect is Effect.ALERT, "verdict": int(decision.verdict)}
            bodies.append({"act": "alert"} | decided | sends)
        elif judged.would is not Effect.NONE and target is not None:
            begun = self._begun(judged.would, decision, target, actor, height, now)
            restriction = begun.id
            bodies.append({"act": "restrict"} | decided | {"restriction": begun.as_json()})
        if judged.would is Effect.NONE:
            self._silent = max(self._silent, height)
        self._commit(bodies)
        return Outcome(effect, judged.would, tuple(decided["reasons"]), restriction, self._sent())

    def _begun(
        self, effect: Effect, decision: LiveDecision, target: Target, actor: Actor, height: int, now: Moment
    ) -> Restriction:
        verdict = decision.verdict
        asked = Restriction(
            id=restriction_id(decision.event_id, height, verdict, target),
            target=target,
            verdict=verdict,
            event_id=decision.event_id,
            height=height,
            duration_ns=self.policy.duration_ns(verdict),
            asked=now,
            wait_ns=self.policy.approval_s * SECOND_NS,
            shadow=self.shadow,
            actor=actor,
        )
        return asked if effect is Effect.ASK else asked.apply(now)

    def _settled_just_now(self) -> bool:
        now, then = self._timeline.now(), self._settled
        if then is None or now.steady_ns - then.steady_ns > _JUST_NOW_NS:
            return False
        return abs(now.wall_ns - then.wall_ns) <= _JUST_NOW_NS

    def _settle(self) -> None:
        """Ends what is over, or lifted by the kill switch; now and then saves the time."""
        now = self._settled = self._timeline.now()
        bodies: list[Body] = []
        for restriction in [*self.state.real.all_open(), *self.state.shadow.all_open()]:
            if restriction.over(now):
                bodies.append(_of("expire", now, restriction.end(State.EXPIRED, now)))
            elif self.state.killed and not restriction.shadow:
                bodies.append(_freed(restriction, now, "kill switch", ""))
        last = self.state.last
        if self.state.real.open and last is not None and now.steady_ns - last.steady_ns >= _SAVED_EVERY_NS:
            bodies.append({"act": "clock", "at": now.as_json()})
        self._commit(bodies, frees=True)

    def _operated(self, restriction_id: str, by: str) -> tuple[Restriction, Moment]:
        """The restriction that an operator speaks of, once what is over has ended."""
        _named(by)
        self._settle()
        restriction = self.state.find(restriction_id)
        if restriction is None:
            waiting = [each.id for each in self.state.real.all_open()]
            raise unknown_name("restriction", restriction_id, waiting or ["(none is open)"])
        if restriction.shadow:
            raise UsageError(f"restriction {restriction_id} only would have been: shadow mode")
        return restriction, self._timeline.now()

    def _end(
        self, act: str, source: State, goal: State, restriction_id: str, by: str, why: str
    ) -> tuple[Command, ...]:
        restriction, now = self._operated(restriction_id, by)
        if restriction.state is not goal:
            if restriction.state is not source:
                raise UsageError(f"restriction {restriction_id} is {restriction.state}; expected {source}")
            self._commit([_of(act, now, restriction.end(goal, now, by=by, why=why))], frees=True)
        return self._sent()

    def _mode(self, act: str, by: str, why: str, *, wanted: bool) -> None:
        _named(by)
        if wanted:
            body = {"act": act, "at": self._timeline.now().as_json(), "by": by, "why": why}
            self._commit([body], frees=act in ("kill", "shadow"))

    def _paged(self, reason: str, now: Moment, about: Mapping[str, Any]) -> list[Body]:
        host = about["host"] if reason not in (Rule.FLEET_RATE, Rule.ALERT_RATE, Rule.NO_QUORUM) else ""
        told = self.state.pages.get((reason, host, self.shadow))
        if told is not None and now.steady_ns - told < self.policy.page_repeat_s * SECOND_NS:
            return []
        # apart, so that a call that did not count keeps nobody from being called once it does
        shadow = {"shadow": True} if self.shadow else {}
        return [{**about, "act": "page", "at": now.as_json(), "reason": reason, "host": host} | shadow]

    def _commit(self, bodies: Sequence[Body], *, frees: bool = False) -> None:
        """Writes changes down and takes them in.

        Args:
            bodies: changes, in their order; they get their numbers here.
            frees: whether they take effect even if they cannot be written down now.
        """
        if not bodies and not self._unsaved:
            return
        numbered = [body | {"n": n} for n, body in enumerate(bodies, self.state.bodies + 1)]
        waiting = [*self._unsaved, *numbered]
        try:
            if self._journal is not None:
                self._journal(waiting)
            self._unsaved = []
        except (PhalanxError, OSError) as problem:
            if numbered and not frees:
                raise
            if numbered:
                _LOG.error("safety: %d changes are not written down yet: %s", len(waiting), problem)
            self._unsaved = waiting
        for body in numbered:
            self.state.fold(body)
            self._owed += commands_of(body)

    def _sent(self) -> tuple[Command, ...]:
        """What is to be sent, once."""
        sent, self._owed = tuple(self._owed), []
        return sent


def _of(act: str, now: Moment, restriction: Restriction) -> Body:
    return {"act": act, "at": now.as_json(), "restriction": restriction.as_json()}


def _freed(restriction: Restriction, now: Moment, why: str, by: str) -> Body:
    if restriction.state is State.PENDING:
        return _of("refuse", now, restriction.end(State.REFUSED, now, by=by, why=why))
    return _of("lift", now, restriction.end(State.LIFTED, now, by=by, why=why))


def _named(by: str) -> None:
    if not by.strip():
        raise UsageError("who acts? give a name, by = ...")
