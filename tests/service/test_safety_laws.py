"""Safety against a plain model of its rules, over restarts at every step, jumps of the clock and a full disk."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from service.hands import Hands
from service.safety_model import Limits, Model, Record, Thing

from phalanx.errors import PhalanxError, UsageError
from phalanx.service.clock import SECOND_NS, Moment
from phalanx.service.commands import Command, commands_of
from phalanx.service.guards import AllowRule, Guards
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import State
from phalanx.service.safety import Safety
from phalanx.types import Verdict

LIMITS = Limits(
    block=900, quarantine=600, wait=500, cooldown=2_000, per_host=2, per_fleet=3, alerts=4, repeat=700
)
BEGINS = ("deny", "contain")
things = st.builds(
    Thing,
    host=st.sampled_from(["h1", "h2"]),
    subject=st.sampled_from(["p", "q"]),
    object=st.sampled_from(["/etc/one", "/srv/two"]),
    guarded=st.sampled_from([False] * 5 + [True]),
    parent=st.sampled_from(["", "p"]),
)
verdicts = st.sampled_from(["allow", "alert"] + ["block"] * 3 + ["quarantine"] * 3)


def policy_of(enforce: bool) -> SafetyPolicy:
    return SafetyPolicy(
        enforce=enforce,
        block_s=LIMITS.block,
        quarantine_s=LIMITS.quarantine,
        approval_s=LIMITS.wait,
        cooldown_s=LIMITS.cooldown,
        restrictions_per_host=LIMITS.per_host,
        restrictions_per_fleet=LIMITS.per_fleet,
        alerts=LIMITS.alerts,
        alert_repeat_s=LIMITS.repeat,
    )


class SafetyMachine(RuleBasedStateMachine):
    """Everything that can happen to the service, beside what should come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands()
        self.disk: list[str] = []  # lines of the ledger
        self.full = False
        self.sent: list[Command] = []
        self.height = 0
        self.latest: Any = None
        self.ids: dict[str, Record] = {}
        self.approved: set[str] = set()
        self.steady = 0  # true seconds since the start, a restart's wrong clocks aside

    @initialize(enforce=st.sampled_from([True, True, True, False]))
    def begin(self, enforce: bool) -> None:
        self.policy = policy_of(enforce)
        self.model = Model(LIMITS, shadow=not enforce)
        self.safety = Safety(self.policy, self.hands, guards=Guards(), journal=self.write)

    def write(self, bodies: Sequence[dict]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.disk += [json.dumps(body) for body in bodies]

    def take(self, commands: Sequence[Command]) -> None:
        self.sent += commands

    def now(self) -> int:
        return self.steady

    def wall(self) -> int:
        return self.hands.wall // SECOND_NS

    @rule(verdict=verdicts, quorum=st.sampled_from([True] * 9 + [False]), thing=things)
    def decide(self, verdict: str, quorum: bool, thing: Thing) -> None:
        self.height += 1
        attributes = {"path": thing.object, "pid": 1 if thing.guarded else 77}
        event = LiveEvent(f"e{self.height}", 0, thing.host, thing.subject, "WRITE", thing.parent, attributes)
        votes = (Verdict[verdict.upper()],) * 4
        decision = LiveDecision(
            event.id, 0, thing.host, thing.subject, votes[0], votes, quorum, 0.5, False, {}, (), "m"
        )
        self.latest = decision, event
        if self.full:
            before = json.dumps(str(self.safety.state))
            try:
                outcome = self.safety.consider(decision, event, self.height)
            except OSError:
                after = self.safety.state
                assert event.id not in {key[1] for key in after.outcomes}
                if verdict in ("block", "quarantine") and quorum:
                    self.model.expire(self.now(), self.wall())  # what ends does so with a full disk too
                return
            assert outcome.effect.value == "none" and not outcome.restriction
            if verdict in ("block", "quarantine") and quorum:
                self.model.expire(self.now(), self.wall())
            else:
                assert before == json.dumps(str(self.safety.state))
            self.take(outcome.commands)
            return
        expected, why, record = self.model.decide(verdict, quorum, thing, self.now(), self.wall())
        outcome = self.safety.consider(decision, event, self.height)
        assert (outcome.would.value, list(outcome.reasons)) == (expected, why)
        assert outcome.effect.value == ("none" if self.model.shadow else expected)
        assert bool(outcome.restriction) == (record is not None)
        if record is not None:
            self.ids[outcome.restriction] = record
        self.take(outcome.commands)

    @precondition(lambda self: self.latest is not None and not self.full)
    @rule()
    def decide_again(self) -> None:
        decision, event = self.latest
        known = self.safety.state.outcomes.get((self.height, event.id))
        outcome = self.safety.consider(decision, event, self.height)
        if known is not None:
            assert (outcome.effect, outcome.would, outcome.reasons, outcome.restriction) == known
            assert outcome.commands == ()
        else:  # it changed nothing the first time; as no time passed for certain, it may by now
            if outcome.would.value == "alert" or outcome.restriction:
                self.height += 1  # in the model it is a decision of its own
            self.follow(decision, event, outcome)

    def follow(self, decision: LiveDecision, event: LiveEvent, outcome: Any) -> None:
        guarded = event.attributes["pid"] == 1
        thing = Thing(event.host, event.subject, str(event.attributes["path"]), guarded, event.parent)
        name = decision.verdict.name.lower()
        expected, why, record = self.model.decide(name, decision.quorum, thing, self.now(), self.wall())
        assert (outcome.would.value, list(outcome.reasons)) == (expected, why)
        if record is not None:
            self.ids[outcome.restriction] = record
        self.take(outcome.commands)

    @precondition(lambda self: self.height > 2)
    @rule(thing=things)
    def an_older_decision_comes_late(self, thing: Thing) -> None:
        event = LiveEvent("late", 0, thing.host, thing.subject, "WRITE", "", {"path": thing.object})
        votes = (Verdict.QUARANTINE,) * 4
        decision = LiveDecision(
            "late", 0, thing.host, thing.subject, votes[0], votes, True, 1.0, False, {}, (), "m"
        )
        if self.safety.state.height > 1:
            outcome = self.safety.consider(decision, event, self.safety.state.height - 1)
            assert (outcome.effect.value, outcome.reasons, outcome.commands) == ("none", ("considered",), ())

    @rule(seconds=st.sampled_from([1, 60, 499, 500, 600, 700, 900, 1_999]))
    def time_passes(self, seconds: int) -> None:
        self.hands.pass_ns(seconds * SECOND_NS)
        self.steady += seconds

    @rule(seconds=st.sampled_from([-3_000, -400, 400, 600, 900]))
    def the_wall_clock_jumps(self, seconds: int) -> None:
        self.hands.wall += seconds * SECOND_NS

    @rule()
    def tick(self) -> None:
        self.take(self.safety.tick())
        self.model.expire(self.now(), self.wall())
        for restriction in self.safety.state.real.all_open():
            assert restriction.remaining_ns(self.safety._timeline.now()) > 0

    @precondition(lambda self: not self.full)
    @rule(down=st.sampled_from([0, 0, 30, 1_000]))
    def restart(self, down: int) -> None:
        last = self.safety.state.last
        self.hands.reboot(down * SECOND_NS)
        self.safety = Safety.replay(
            map(json.loads, self.disk), self.policy, self.hands, guards=Guards(), journal=self.write
        )
        # what was owed when it was killed follows from the journal
        derived = [command for line in self.disk for command in commands_of(json.loads(line))]
        assert derived[: len(self.sent)] == self.sent
        self.sent = derived
        # what the service can know: the time of its last body, and what the wall clock says has passed since
        if last is not None:
            passed = max(0, self.hands.wall - last.wall_ns)
            self.steady = (last.steady_ns + passed) // SECOND_NS
            assert self.safety._timeline.now() == Moment(self.hands.wall, last.steady_ns + passed)
        else:
            self.steady = 0
        self.hands.monotonic = 0

    @precondition(lambda self: bool(self.ids) and not self.full)
    @rule(data=st.data(), what=st.sampled_from(["approve", "approve", "deny", "undo"]))
    def operator(self, data: st.DataObject, what: str) -> None:
        self.model.expire(self.now(), self.wall())
        open_ones = [each for each in self.ids if self.ids[each].state in ("pending", "active")]
        chosen = data.draw(st.sampled_from(open_ones or sorted(self.ids)) | st.sampled_from(sorted(self.ids)))
        record = self.ids[chosen]
        kept = self.safety.state.find(chosen)
        shadow = kept is None or kept.shadow
        goal, source = {
            "approve": ("active", "pending"),
            "deny": ("refused", "pending"),
            "undo": ("lifted", "active"),
        }[what]
        asked = what == "approve" and record.state == "pending" and not self.model.shadow and not shadow
        against = record.thing.guarded or record.thing.object in self.model.allowed
        refused = "refused, not approved" if asked and against else ""
        try:
            self.take(getattr(self.safety, what)(chosen, by="ann", why="because"))
        except UsageError as problem:
            assert shadow or refused in str(problem)
            if refused:
                record.state, record.ended, record.freed = "refused", self.now(), True
            else:
                late = what == "approve" and record.state == "pending" and self.model.shadow
                assert shadow or record.state not in (goal, source) or late
            return
        assert not refused and not shadow and record.state in (goal, source)
        if record.state == source:
            record.state = goal
            if what == "approve":
                record.since, record.wall = self.now(), self.wall()
                self.approved.add(chosen)
            else:
                record.ended, record.freed = self.now(), True

    @rule(what=st.sampled_from(["kill", "release", "release", "fall_back", "enforce", "enforce", "disk"]))
    def switch(self, what: str) -> None:
        if what == "kill":
            self.take(self.safety.kill(by="ann", why="enough"))
            self.model.killed = True
            self.model.expire(self.now(), self.wall())
            self.free(lambda record: True)
            assert not self.safety.state.real.open
        elif what == "fall_back":
            self.take(self.safety.fall_back(by="drift", why="psi 0.4"))
            self.model.shadow = True
        elif what == "disk":
            self.full = not self.full
            self.tick()
        elif what == "release" and not self.full:
            self.take(self.safety.release(by="ann"))
            self.model.killed = False
        elif what == "enforce" and not self.policy.enforce:
            with pytest.raises(UsageError, match="--enforce"):
                self.safety.enforce(by="ann")
        elif what == "enforce" and not self.full:
            self.take(self.safety.enforce(by="ann"))
            self.model.shadow = False

    @precondition(lambda self: not self.full)
    @rule(remove=st.booleans())
    def allow_list(self, remove: bool) -> None:
        rule_ = AllowRule("nightly", self.hands.wall + 10**6 * SECOND_NS, path="/srv/two")
        if remove:
            for rule_id in list(self.safety.state.allow):
                self.take(self.safety.forbid(rule_id, by="ann"))
            self.model.allowed.clear()
        else:
            self.take(self.safety.permit(rule_, by="ann"))
            self.model.allowed.add("/srv/two")
            self.model.expire(self.now(), self.wall())
            self.free(lambda record: record.thing.object == "/srv/two")

    def free(self, which: Any) -> None:
        for record in self.model.records:
            if record.state in ("pending", "active") and which(record):
                record.state = "refused" if record.state == "pending" else "lifted"
                record.ended, record.freed = self.now(), True

    @invariant()
    def what_is_in_force_is_what_should_be(self) -> None:
        if not hasattr(self, "safety"):
            return
        for each, record in self.ids.items():
            kept = self.safety.state.find(each)
            if kept is not None:
                assert kept.state.value == record.state, each

    @invariant()
    def the_journal_alone_rebuilds_it_and_knows_what_was_sent(self) -> None:
        if not hasattr(self, "safety") or self.full:
            return
        if not self.safety._unsaved:
            again = Safety.replay(map(json.loads, self.disk), self.policy, self.hands, guards=Guards())
            assert again.state == self.safety.state
            derived = [command for line in self.disk for command in commands_of(json.loads(line))]
            if not self.safety._owed:
                assert derived == self.sent

    @invariant()
    def no_command_is_sent_twice(self) -> None:
        keys = [command.key for command in self.sent]
        assert len(keys) == len(set(keys))
        assert all(len(key) <= 36 and " " not in key for key in keys)

    @invariant()
    def no_hour_has_more_restrictions_than_allowed(self) -> None:
        began = [(c.at.steady_ns, c.host) for c in self.sent if c.action in BEGINS]
        for end, host in began:
            within = [h for t, h in began if end - LIMITS_WINDOW < t <= end]
            assert len(within) <= LIMITS.per_fleet
            assert within.count(host) <= LIMITS.per_host

    @invariant()
    def what_begins_is_allowed_to(self) -> None:
        for command in self.sent:
            if command.action in BEGINS:
                restriction = command.restriction
                assert restriction is not None and restriction.actor is not None
                assert restriction.actor.pid != 1 and not restriction.shadow and self.policy.enforce
                assert restriction.state is State.ACTIVE and restriction.duration_ns > 0
                assert command.action == "deny" or restriction.id in self.approved

    @invariant()
    def nothing_returns_that_an_operator_lifted(self) -> None:
        freed: list[Command] = []
        for command in self.sent:
            restriction = command.restriction
            if restriction is None:
                continue
            if command.action == "allow" and restriction.state is State.LIFTED:
                freed.append(command)
            if command.action in BEGINS and restriction.id not in self.approved:
                for each in freed:
                    assert each.restriction is not None
                    if restriction.target.overlaps(each.restriction.target):
                        assert command.at.steady_ns - each.at.steady_ns >= LIMITS.cooldown * SECOND_NS


LIMITS_WINDOW = 3_600 * SECOND_NS
TestSafety = SafetyMachine.TestCase
TestSafety.settings = settings(max_examples=80, stateful_step_count=40)


class TestSafetyLong(SafetyMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=500, stateful_step_count=60)


TestSafetyLong = pytest.mark.slow(TestSafetyLong)


def test_an_error_of_the_journal_that_is_none_of_ours_is_not_hidden() -> None:
    def broken(bodies: Sequence[dict]) -> None:
        raise ZeroDivisionError

    safety = Safety(policy_of(True), Hands(), guards=Guards(), journal=broken)
    with pytest.raises(ZeroDivisionError):
        safety.kill(by="ann")
    assert not issubclass(ZeroDivisionError, PhalanxError)
