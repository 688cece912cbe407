"""The rules that a decision passes before it takes effect; each of them can only make the effect milder.

1. *shadow*: nothing takes effect; what would have is written down.
2. *considered*: a decision that came before leads to nothing new.
3. *no-quorum*: alert, and an operator is called.
4. *killed*: while the kill switch is pulled a restriction becomes an alert.
5. *in-force*: what is restricted already, or waits for approval, is not restricted twice.
6. *cooldown*: nor is a target again that an operator freed; that becomes an alert.
7. *host-rate*, *fleet-rate*: what exceeds them becomes an alert, and an operator is called.
8. *approval*: the restriction waits for an operator, and is given up when none answers.
9. *guarded*, *allow-listed*: last, immediately before anything takes effect, and again on approval.
10. *alert-repeat*, *alert-rate*: of one process operators are told once in a while, and of all together not too often.
"""

import socket
from dataclasses import dataclass
from enum import StrEnum

from phalanx.service.actors import Actor, lineage
from phalanx.service.clock import SECOND_NS, Moment
from phalanx.service.guards import AllowRule, Guards, allowed_by
from phalanx.service.policy import RATE_WINDOW_S, SafetyPolicy
from phalanx.service.records import LiveDecision
from phalanx.service.restrictions import Restriction, State, Target
from phalanx.service.safety_state import Effect, SafetyState
from phalanx.verdicts import Verdict

__all__ = ["Judgement", "Rule", "Rules", "guards_of"]


class Rule(StrEnum):
    """Rules that can speak on a decision; a closed list, fit for labels of metrics."""

    SHADOW = "shadow"
    CONSIDERED = "considered"
    NO_QUORUM = "no-quorum"
    KILLED = "killed"
    IN_FORCE = "in-force"
    COOLDOWN = "cooldown"
    HOST_RATE = "host-rate"
    FLEET_RATE = "fleet-rate"
    APPROVAL = "approval"
    GUARDED = "guarded"
    ALLOW_LISTED = "allow-listed"
    ALERT_REPEAT = "alert-repeat"
    ALERT_RATE = "alert-rate"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules come to.

    Attributes:
        would: the effect, were the service enforcing.
        reasons: rules that spoke, in their order.
        calls: of these, those that an operator is called for.
    """

    would: Effect
    reasons: tuple[Rule, ...] = ()
    calls: tuple[Rule, ...] = ()


class Rules:
    """The rules over what is in force.

    Args:
        policy: the limits.
        guards: processes that nothing is done to.
        state: what is in force; read alone.
    """

    def __init__(self, policy: SafetyPolicy, guards: Guards, state: SafetyState) -> None:
        self.policy = policy
        self.guards = guards
        self.state = state
        self._used_up_until: dict[
            tuple[bool, str], int
        ] = {}  # (shadow, host or "" for the fleet) -> steady ns

    @property
    def shadow(self) -> bool:
        """Whether nothing takes effect: the policy does not enforce, or the service fell back."""
        return not self.policy.enforce or self.state.fallback is not None

    def silent(self, would: Effect) -> bool:
        """Whether an effect is only written down."""
        return self.shadow and not (would is Effect.ALERT and self.policy.alert_in_shadow)

    def judge(self, decision: LiveDecision, target: Target | None, actor: Actor, now: Moment) -> Judgement:
        """What a decision leads to that was not considered before.

        Args:
            decision: the committee's.
            target: of the restriction, None where the verdict restricts nothing.
            actor: who acted.
            now: the moment; nothing that is over by then may be open.
        """
        reasons = [Rule.SHADOW] if self.shadow else []
        calls: list[Rule] = []
        effect = (
            Effect(decision.verdict.name.lower()) if decision.verdict is not Verdict.ALLOW else Effect.NONE
        )
        if not decision.quorum:
            effect = Effect.ALERT
            reasons.append(Rule.NO_QUORUM)
            calls.append(Rule.NO_QUORUM)
        elif target is not None:
            milder = self._milder(target, actor, now)
            if milder is None and self.policy.needs_approval(decision.verdict):
                milder = Effect.ASK, Rule.APPROVAL
            if milder is not None:
                effect, rule = milder
                reasons.append(rule)
                if rule in (Rule.HOST_RATE, Rule.FLEET_RATE) and not self.shadow:
                    calls.append(rule)
        if effect is not Effect.NONE:
            effect = self._last(effect, actor, now, reasons)
        if effect is Effect.ALERT:
            effect = self._told(actor, now, reasons)
            if reasons and reasons[-1] is Rule.ALERT_RATE and not self.shadow:
                calls.append(Rule.ALERT_RATE)
        return Judgement(effect, tuple(reasons), tuple(calls))

    def against(self, restriction: Restriction, now: Moment) -> str:
        """Why a restriction that waits must not begin, whoever approves it; empty where nothing speaks against it."""
        if restriction.actor is None:
            return "it is not known who acted"
        guarded = self.guards.why(restriction.actor)
        if guarded:
            return f"guarded: {guarded}"
        allowed = allowed_by(self._allow_list(), restriction.actor, now)
        return "" if allowed is None else f"on the allow-list: {allowed.reason}"

    def _milder(self, target: Target, actor: Actor, now: Moment) -> tuple[Effect, Rule] | None:
        """Rules 4 to 7: the effect and the rule that speaks first; None where none does."""
        if self.state.killed:
            return Effect.ALERT, Rule.KILLED
        for books in {id(each): each for each in (self.state.books(self.shadow), self.state.real)}.values():
            for open_one in books.open.get(target.host, {}).values():
                waits = open_one.state is State.PENDING  # what only waits holds nothing smaller back
                if target == open_one.target if waits else target.within(open_one.target, actor.ancestors):
                    return Effect.NONE, Rule.IN_FORCE
        cooldown_ns = self.policy.cooldown_s * SECOND_NS
        for freed in self.state.real.freed.get(target.host, {}).values():
            recent = freed.ended is not None and now.steady_ns - freed.ended.steady_ns < cooldown_ns
            if recent and target.overlaps(freed.target, actor.ancestors):
                return Effect.ALERT, Rule.COOLDOWN
        if self._used_up(target.host, self.policy.restrictions_per_host, now):
            return Effect.ALERT, Rule.HOST_RATE
        if self._used_up("", self.policy.restrictions_per_fleet, now):
            return Effect.ALERT, Rule.FLEET_RATE
        return None

    def _last(self, effect: Effect, actor: Actor, now: Moment, reasons: list[Rule]) -> Effect:
        """Rule 9."""
        if effect is not Effect.ALERT and self.guards.why(actor):
            reasons.append(Rule.GUARDED)
            effect = Effect.ALERT
        allowed = allowed_by(self._allow_list(), actor, now)
        if allowed is None:
            return effect
        reasons.append(Rule.ALLOW_LISTED)
        return Effect.ALERT if allowed.alert else Effect.NONE

    def _told(self, actor: Actor, now: Moment, reasons: list[Rule]) -> Effect:
        """Rule 10."""
        books = self.state.books(self.shadow)
        told = books.alerts.get((actor.host, actor.subject))
        if told is not None and now.steady_ns - told < self.policy.alert_repeat_s * SECOND_NS:
            reasons.append(Rule.ALERT_REPEAT)
            return Effect.NONE
        if books.alerts_used_up(self.policy.alerts, now):
            reasons.append(Rule.ALERT_RATE)
            return Effect.NONE
        return Effect.ALERT

    def _used_up(self, host: str, most: int, now: Moment) -> bool:
        """Whether the rate of a host, or of the fleet (""), is used up.

        Until when is kept: approval moves what counts to a later moment and never takes it away.
        """
        if now.steady_ns < self._used_up_until.get((self.shadow, host), 0):
            return True
        counted = self.state.books(self.shadow).counted(now)
        times = sorted(r.counted.steady_ns for r in counted if host in ("", r.target.host))
        if len(times) < most:
            self._used_up_until.pop((self.shadow, host), None)
            return False
        if most:
            leaves = times[len(times) - most] + RATE_WINDOW_S * SECOND_NS
            self._used_up_until[self.shadow, host] = leaves
        return True

    def _allow_list(self) -> list[AllowRule]:
        return [*self.policy.allow, *self.state.allow.values()]


def guards_of(policy: SafetyPolicy) -> Guards:
    """The guards that a policy asks for, this process and its ancestors among them."""
    return Guards(
        host=policy.host or socket.gethostname(),
        own=lineage(),
        programs=policy.programs,
        subjects=policy.subjects,
        require_pid=policy.require_pid,
    )
