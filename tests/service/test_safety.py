"""Safety, case by case: what an operator is promised."""

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from service.hands import Hands

from phalanx.errors import DataError, UsageError
from phalanx.service.actors import Actor, lineage
from phalanx.service.clock import SECOND_NS
from phalanx.service.commands import Command, commands_of
from phalanx.service.guards import AllowRule, Guards
from phalanx.service.policy import SafetyPolicy
from phalanx.service.records import LiveDecision, LiveEvent, Value
from phalanx.service.safety import Outcome, Safety
from phalanx.service.safety_rules import guards_of
from phalanx.types import Verdict

ENFORCING = SafetyPolicy(enforce=True)
NOBODY = Guards()


class Service:
    """Safety with a journal in memory, and clocks that stand still."""

    def __init__(self, policy: SafetyPolicy = ENFORCING, guards: Guards = NOBODY) -> None:
        self.hands = Hands()
        self.disk: list[str] = []
        self.policy, self.guards = policy, guards
        self.height = 0
        self.safety = self.start()

    def start(self) -> Safety:
        self.safety = Safety.replay(
            map(json.loads, self.disk),
            self.policy,
            self.hands,
            guards=self.guards,
            journal=lambda bodies: self.disk.extend(map(json.dumps, bodies)),
        )
        return self.safety

    def decide(
        self,
        verdict: str,
        subject: str = "p",
        *,
        host: str = "h",
        quorum: bool = True,
        ancestors: Sequence[str] = (),
        attributes: Mapping[str, Value] | None = None,
        **more: Value,
    ) -> Outcome:
        self.height += 1
        told: dict[str, Value] = {"path": "/x", **(attributes or {}), **more}
        event = LiveEvent(f"e{self.height}", 0, host, subject, "WRITE", attributes=told)
        votes = (Verdict[verdict.upper()],) * 4
        decision = LiveDecision(event.id, 0, host, subject, votes[0], votes, quorum, 0.5, False, {}, (), "m")
        return self.safety.consider(decision, event, self.height, ancestors=ancestors)


def actions(commands: Sequence[Command]) -> list[str]:
    return [command.action for command in commands]


def test_in_shadow_mode_nothing_is_ever_sent_and_what_would_have_been_is_written_down() -> None:
    service = Service(SafetyPolicy())
    for verdict, would in (("alert", "alert"), ("block", "block"), ("quarantine", "ask")):
        outcome = service.decide(verdict, subject=verdict)
        assert (outcome.effect.value, outcome.would.value) == ("none", would)
        assert outcome.reasons[0] == "shadow" and outcome.commands == ()
    assert [json.loads(line)["would"] for line in service.disk] == ["alert", "block", "ask"]
    service.hands.pass_s(10_000)
    assert service.safety.tick() == ()
    assert [command for line in service.disk for command in commands_of(json.loads(line))] == []


def test_alerts_are_sent_in_shadow_mode_where_asked_for() -> None:
    service = Service(SafetyPolicy(alert_in_shadow=True))
    assert actions(service.decide("alert").commands) == ["alert"]
    assert actions(service.decide("block", subject="q").commands) == []


def test_a_quarantine_waits_for_approval_and_is_given_up_without() -> None:
    service = Service()
    outcome = service.decide("quarantine")
    assert actions(outcome.commands) == ["ask"] and outcome.reasons == ("approval",)
    service.hands.pass_s(599)
    assert service.safety.tick() == ()
    service.hands.pass_s(1)
    # nothing had begun: nothing is to be lifted, and the finding is closed
    assert actions(service.safety.tick()) == ["drop"]
    with pytest.raises(UsageError, match="is expired"):
        service.safety.approve(outcome.restriction, by="ann")


def test_an_approved_quarantine_lasts_from_its_approval_and_ends_by_itself() -> None:
    service = Service()
    asked = service.decide("quarantine").restriction
    service.hands.pass_s(300)
    (contain,) = service.safety.approve(asked, by="ann", why="seen it")
    assert (contain.action, contain.by, contain.why) == ("contain", "ann", "seen it")
    assert service.safety.approve(asked, by="bob") == ()  # a retry over HTTP
    service.hands.pass_s(599)
    assert service.safety.tick() == ()
    service.hands.pass_s(1)
    (allow,) = service.safety.tick()
    assert allow.action == "allow" and allow.restriction is not None
    assert allow.restriction.state.value == "expired" and allow.lane == contain.lane
    assert allow.subject_key == contain.subject_key and allow.key != contain.key


def test_a_guard_or_an_allow_rule_that_came_meanwhile_is_looked_at_again_on_approval() -> None:
    for change in (
        {"guards": Guards(programs=("/usr/bin/late",))},
        {
            "policy": dataclasses.replace(
                ENFORCING, allow=(AllowRule("ours", 181 * 10**16, executable="/usr/bin"),)
            )
        },
    ):
        service = Service()
        asked = service.decide("quarantine", exe="/usr/bin/late").restriction
        for name, value in change.items():
            setattr(service, name, value)
        safety = service.start()
        with pytest.raises(UsageError, match=r"refused, not approved: (guarded|on the allow-list)"):
            safety.approve(asked, by="ann")
        assert safety.state.find(asked).state.value == "refused"  # type: ignore[union-attr]
        assert "contain" not in str(service.disk[-1])


def test_what_waits_when_the_service_falls_back_cannot_begin_until_it_enforces() -> None:
    service = Service()
    asked = service.decide("quarantine").restriction
    assert actions(service.safety.fall_back(by="drift", why="psi 0.4")) == ["page"]
    with pytest.raises(UsageError, match="shadow mode"):
        service.start().approve(asked, by="ann")
    assert actions(service.safety.enforce(by="ann")) == ["page"]
    assert actions(service.safety.approve(asked, by="ann")) == ["contain"]


def test_a_call_in_shadow_mode_keeps_nobody_from_being_called_later() -> None:
    service = Service(SafetyPolicy())
    assert actions(service.safety.page("no-quorum")) == ["page"]
    assert actions(service.safety.page("no-quorum")) == []
    service.policy = ENFORCING
    safety = service.start()
    assert actions(safety.page("no-quorum")) == ["page"] and actions(safety.page("no-quorum")) == []


def test_operators_cannot_enforce_what_was_not_started_to() -> None:
    service = Service(SafetyPolicy())
    with pytest.raises(UsageError, match="--enforce"):
        service.safety.enforce(by="ann")


def test_a_restart_in_shadow_mode_ends_what_is_in_force_in_its_time() -> None:
    service = Service()
    service.decide("block")
    service.policy = SafetyPolicy()
    safety = service.start()
    assert safety.shadow and safety.tick() == ()
    service.hands.pass_s(900)
    assert actions(safety.tick()) == ["allow"]


def test_without_a_quorum_it_is_an_alert_and_an_operator_is_called_once_in_a_while() -> None:
    service = Service()
    outcome = service.decide("quarantine", quorum=False)
    assert outcome.effect.value == "alert" and actions(outcome.commands) == ["page", "alert"]
    assert actions(service.decide("allow", subject="q", quorum=False).commands) == ["alert"]
    service.hands.pass_s(900)
    assert actions(service.decide("block", subject="r", quorum=False).commands) == ["page", "alert"]


def test_beyond_the_rate_of_a_host_there_are_alerts_and_one_call() -> None:
    service = Service()
    effects = [service.decide("block", subject=f"p{i}") for i in range(12)]
    assert [o.effect.value for o in effects] == ["block"] * 10 + ["alert"] * 2
    assert actions(effects[10].commands) == ["page", "alert"] and effects[10].reasons == ("host-rate",)
    assert actions(effects[11].commands) == ["alert"]
    assert service.decide("block", host="other").effect.value == "block"
    service.hands.pass_s(3_599)
    assert service.decide("block", subject="late").effect.value == "alert"
    service.hands.pass_s(1)
    assert service.decide("block", subject="later").effect.value == "block"


def test_beyond_the_rate_of_the_fleet_no_host_is_restricted() -> None:
    service = Service()
    outcomes = [service.decide("block", host=f"h{i}") for i in range(52)]
    assert [o.effect.value for o in outcomes] == ["block"] * 50 + ["alert"] * 2
    assert outcomes[50].reasons == ("fleet-rate",) and actions(outcomes[50].commands) == ["page", "alert"]
    assert actions(outcomes[51].commands) == ["alert"]


def test_approved_late_it_counts_from_then() -> None:
    service = Service(dataclasses.replace(ENFORCING, restrictions_per_host=1))
    asked = service.decide("quarantine").restriction
    service.hands.pass_s(500)
    service.safety.approve(asked, by="ann")
    service.hands.pass_s(3_599)
    assert service.decide("block", subject="q").reasons == ("host-rate",)
    service.hands.pass_s(1)
    assert service.decide("block", subject="q").effect.value == "block"


def test_a_rate_is_free_again_once_the_oldest_is_an_hour_old() -> None:
    service = Service(dataclasses.replace(ENFORCING, restrictions_per_host=2))
    service.decide("block", subject="a")
    service.hands.pass_s(1_800)
    service.decide("block", subject="b")
    assert service.decide("block", subject="c").reasons == ("host-rate",)
    service.hands.pass_s(1_799)
    assert service.decide("block", subject="c").reasons == ("host-rate",)
    service.hands.pass_s(1)
    assert service.decide("block", subject="c").effect.value == "block"
    assert service.decide("block", subject="d").reasons == ("host-rate",)


@pytest.mark.parametrize("zero", ["restrictions_per_host", "restrictions_per_fleet"])
def test_a_rate_of_zero_restricts_nothing(zero: str) -> None:
    service = Service(dataclasses.replace(ENFORCING, **{zero: 0}))
    assert service.decide("block").effect.value == "alert"


def test_what_an_operator_lifted_does_not_return_within_the_cooldown() -> None:
    service = Service()
    first = service.decide("block").restriction
    assert actions(service.safety.undo(first, by="ann", why="a deployment")) == ["allow"]
    assert service.safety.undo(first, by="ann") == ()
    again = service.decide("block")
    assert (again.effect.value, again.reasons) == ("alert", ("cooldown",))
    assert service.decide("quarantine").reasons == ("cooldown", "alert-repeat")
    assert service.decide("block", path="/other").effect.value == "block"
    assert service.start().state.find(first) is not None  # a restart does not forget it
    service.hands.pass_s(3_599)
    assert service.decide("block").reasons == ("cooldown",)
    service.hands.pass_s(1)
    assert service.decide("block").effect.value == "block"


def test_after_an_undone_quarantine_descendants_are_left_alone_too() -> None:
    service = Service()
    asked = service.decide("quarantine", subject="parent").restriction
    service.safety.approve(asked, by="ann")
    held = service.decide("block", subject="child", ancestors=("parent",))
    assert held.reasons == ("in-force",)
    service.safety.undo(asked, by="ann")
    assert service.decide("block", subject="child", ancestors=("parent",)).reasons == ("cooldown",)
    assert service.decide("block", subject="child").effect.value == "block"


def test_a_denied_quarantine_is_not_asked_for_again_at_once() -> None:
    service = Service()
    asked = service.decide("quarantine").restriction
    assert service.decide("quarantine").reasons == ("in-force",)
    (drop,) = service.safety.deny(asked, by="ann")
    assert (drop.action, drop.by) == ("drop", "ann")
    assert service.decide("quarantine").reasons == ("cooldown",)


def test_what_only_waits_holds_no_block_back() -> None:
    service = Service()
    service.decide("quarantine")
    assert service.decide("block").effect.value == "block"


def test_the_kill_switch_lifts_all_and_holds_over_restarts() -> None:
    service = Service()
    asked = service.decide("quarantine", subject="q").restriction
    for i in range(3):
        service.decide("block", subject=f"p{i}")
    assert sorted(actions(service.safety.kill(by="ann", why="outage"))) == ["allow"] * 3 + ["drop", "page"]
    assert service.safety.kill(by="bob") == ()
    safety = service.start()
    assert safety.tick() == () and safety.state.killed
    assert service.decide("block", subject="new").reasons == ("killed",)
    with pytest.raises(UsageError, match="is refused"):
        safety.approve(asked, by="ann")
    assert actions(safety.release(by="ann")) == ["page"]
    assert service.decide("block", subject="p0").reasons == ("cooldown",)
    assert service.decide("block", subject="newer").effect.value == "block"


def test_a_kill_that_was_cut_short_is_finished_after_the_restart() -> None:
    service = Service()
    for i in range(3):
        service.decide("block", subject=f"p{i}")
    service.safety.kill(by="ann")
    service.disk = service.disk[:-2]  # the last two lifts never reached the disk
    assert actions(service.start().tick()) == ["allow", "allow"]


def test_the_kill_switch_works_with_a_full_disk_and_is_written_down_later() -> None:
    service = Service()
    service.decide("block")
    full = True

    def journal(bodies: Sequence[dict]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        service.disk.extend(map(json.dumps, bodies))

    safety = Safety.replay(
        map(json.loads, service.disk), ENFORCING, service.hands, guards=NOBODY, journal=journal
    )
    lines = len(service.disk)
    assert actions(safety.kill(by="ann")) == ["page", "allow"]
    service.safety = safety
    with pytest.raises(OSError, match="No space"):
        service.decide("alert")
    assert len(service.disk) == lines and safety.state.killed
    full = False
    safety.tick()
    assert [json.loads(line)["act"] for line in service.disk[lines:]] == ["kill", "lift"]
    assert service.start().state == safety.state


def test_restrictions_end_in_time_with_a_full_disk() -> None:
    service = Service()
    service.decide("block")

    def journal(bodies: Sequence[dict]) -> None:
        raise DataError("the ledger's disk is full; free some space")

    safety = Safety.replay(map(json.loads, service.disk), ENFORCING, service.hands, journal=journal)
    service.hands.pass_s(900)
    assert actions(safety.tick()) == ["allow"] and safety.tick() == ()


def test_what_phalanx_started_is_guarded_while_it_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    guards = Guards("h", own=lineage())
    actor = Actor("h", "p", pid=child.pid)
    assert guards.why(actor) and not guards.why(dataclasses.replace(actor, host="other"))
    child.communicate(b"\n")
    assert not guards.why(actor)


def test_pid_1_phalanx_itself_and_listed_processes_are_never_restricted() -> None:
    own = Guards(
        "h", own=(50, 40), programs=("/usr/sbin/sshd", "watchdog"), subjects=("agent", "db-*:root-*")
    )
    service = Service(guards=own)

    def guarded(subject: str = "p", host: str = "h", **attributes: Value) -> bool:
        service.height += 1
        outcome = service.decide(
            "block", subject, host=host, attributes={"path": f"/{service.height}"} | attributes
        )
        assert ("guarded" in outcome.reasons) == (outcome.effect.value != "block")
        service.hands.pass_s(4_000)
        service.safety.tick()
        return "guarded" in outcome.reasons

    assert (
        guarded(pid=1) and guarded(pid="1") and guarded(pid=1.0) and guarded(subject="1") and guarded(pid=0)
    )
    assert guarded(subject="pid:1") and not guarded(subject="pod:1")
    assert guarded(pid=50) and guarded(pid=40, host="h.example.net") and guarded(pid=50, host="H")
    assert not guarded(pid=50, host="other") and not guarded(pid=51)
    assert guarded(exe="/usr/sbin/sshd") and guarded(exe="//usr/sbin/../sbin/sshd")
    assert not guarded(exe="/tmp/sshd")
    assert guarded(exe="/opt/watchdog") and guarded(comm="watchdog")
    assert not guarded(exe="/tmp/evil", comm="watchdog")  # it chose that name
    assert (
        guarded(subject="agent") and guarded(subject="root-1", host="db-2") and not guarded(subject="root-1")
    )


def test_where_pids_are_required_what_has_none_is_not_restricted() -> None:
    service = Service(guards=Guards(require_pid=True))
    assert service.decide("block").reasons == ("guarded",)
    assert service.decide("block", pid=7).effect.value == "block"


def test_the_service_guards_itself() -> None:
    import os

    guards = guards_of(SafetyPolicy(host="this"))
    assert guards.own[:2] == (os.getpid(), os.getppid()) and guards.host == "this"
    assert guards_of(SafetyPolicy()).host


def test_what_is_allowed_leads_to_nothing_unless_alerts_are_wanted() -> None:
    quiet = AllowRule("backup", 181 * 10**16, host="h", executable="/opt/backup")
    loud = AllowRule("scanner", 181 * 10**16, host="h", executable="/opt/scan", alert=True)
    service = Service(dataclasses.replace(ENFORCING, allow=(quiet, loud)))
    assert service.decide("quarantine", exe="/opt/backup/run").reasons == ("approval", "allow-listed")
    assert service.decide("alert", exe="/opt/backup/run").effect.value == "none"
    assert service.decide("block", exe="/opt/scan/run").effect.value == "alert"
    assert service.decide("block", exe="/opt/backup-evil/run").effect.value == "block"
    assert service.decide("block", path="/y", exe="/opt/backup/../../tmp/run").effect.value == "block"
    service.hands.wall = 181 * 10**16  # the rules are over
    assert service.decide("block", subject="q", exe="/opt/backup/run").effect.value == "block"


def test_a_rule_that_comes_frees_what_it_allows_and_can_be_taken_back() -> None:
    service = Service()
    service.decide("block", exe="/opt/tool/x")
    kept = service.decide("block", exe="/opt/other", path="/y").restriction
    rule = AllowRule("ours", service.hands.wall + 10**15, executable="/opt/tool")
    assert actions(service.safety.permit(rule, by="ann", why="ticket 7")) == ["allow"]
    assert service.safety.permit(rule, by="ann") == ()
    assert [each.id for each in service.safety.state.real.all_open()] == [kept]
    assert service.start().forbid(rule.id, by="ann") == ()
    with pytest.raises(UsageError, match="unknown allow rule"):
        service.safety.forbid(rule.id, by="ann")
    for bad, words in (
        (service.hands.wall, "over already"),
        (service.hands.wall + 400 * 86_400 * SECOND_NS, "366 d"),
    ):
        with pytest.raises(UsageError, match=words):
            service.safety.permit(dataclasses.replace(rule, expires_ns=bad), by="ann")


def test_a_rule_of_the_policy_that_is_over_is_told_of_and_one_that_lasts_too_long_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="phalanx"):
        Service(dataclasses.replace(ENFORCING, allow=(AllowRule("old", 1, path="/srv/a"),)))
    assert "'old' is over" in caplog.text
    with pytest.raises(UsageError, match="renew it in time"):
        Service(dataclasses.replace(ENFORCING, allow=(AllowRule("long", 3 * 10**18, path="/srv/a"),)))


def test_a_process_is_told_of_once_in_a_while() -> None:
    service = Service()
    assert [service.decide("alert").effect.value for _ in range(3)] == ["alert", "none", "none"]
    assert service.decide("alert", subject="q").effect.value == "alert"
    service.hands.pass_s(900)
    assert service.decide("alert").effect.value == "alert"


def test_beyond_the_rate_of_alerts_they_are_counted_and_an_operator_is_called_once() -> None:
    service = Service(dataclasses.replace(ENFORCING, alerts=2))
    outcomes = [service.decide("alert", subject=f"p{i}") for i in range(4)]
    assert [actions(each.commands) for each in outcomes] == [["alert"], ["alert"], ["page"], []]
    assert service.safety.counts["rule/alert-rate"] == 2 and service.safety.counts["effect/none"] == 2
    service.hands.pass_s(3_600)
    assert service.decide("alert", subject="p9").effect.value == "alert"


def test_what_is_over_is_lifted_before_the_same_target_is_restricted_anew() -> None:
    service = Service()
    service.decide("block")
    service.hands.pass_s(900)
    commands = service.decide("block").commands
    assert actions(commands) == ["allow", "deny"] and commands[0].lane == commands[1].lane


def test_the_same_decision_twice_restricts_once_also_after_a_restart() -> None:
    service = Service()
    first = service.decide("block")
    service.height -= 1
    second = service.decide("block")
    assert (second.effect, second.restriction, second.commands) == (first.effect, first.restriction, ())
    service.start()
    service.height -= 1
    assert service.decide("block").commands == ()
    service.height = 5
    service.decide("block", path="/z")
    service.height = 2  # an older height that nothing is remembered of
    late = service.decide("quarantine")
    assert (late.reasons, late.commands) == (("considered",), ())


def test_a_clock_set_back_over_a_restart_adds_half_a_minute_at_most() -> None:
    service = Service()
    service.decide("block")
    for _ in range(60):
        service.hands.pass_s(10)
        service.safety.tick()
    service.hands.reboot()
    service.hands.wall -= 10**15
    safety = service.start()
    (restriction,) = safety.state.real.all_open()
    assert 300 <= restriction.remaining_ns(safety._timeline.now()) / SECOND_NS <= 330


def test_calls_of_one_reason_and_host_are_not_repeated_at_once() -> None:
    service = Service()
    assert [actions(service.safety.page("drift", why="psi")) for _ in range(2)] == [["page"], []]
    assert actions(service.safety.page("drift", host="h")) == ["page"]
    assert actions(service.safety.page("calibration")) == ["page"]


@pytest.mark.parametrize("what", ["approve", "deny", "undo"])
def test_operators_are_told_what_they_got_wrong(what: str) -> None:
    service = Service()
    block = service.decide("block").restriction
    with pytest.raises(UsageError, match=f"unknown restriction 'nonsense'; choose one of: {block}"):
        getattr(service.safety, what)("nonsense", by="ann")
    with pytest.raises(UsageError, match="who acts"):
        getattr(service.safety, what)(block, by=" ")
    if what == "deny":
        with pytest.raises(UsageError, match="is active; expected pending"):
            service.safety.deny(block, by="ann")
    if what == "undo":
        asked = service.decide("quarantine", subject="q").restriction
        with pytest.raises(UsageError, match="is pending; expected active"):
            service.safety.undo(asked, by="ann")
    service.policy = SafetyPolicy()
    service.start()
    would = service.decide("block", subject="r").restriction
    with pytest.raises(UsageError, match="only would have been"):
        getattr(service.safety, what)(would, by="ann")


def test_what_was_sent_comes_even_if_the_call_that_ended_it_failed() -> None:
    service = Service()
    block = service.decide("block").restriction
    service.hands.pass_s(900)
    with pytest.raises(UsageError, match="is expired"):
        service.safety.undo(block, by="ann")
    assert actions(service.safety.tick()) == ["allow"]


def test_bodies_are_taken_in_once_and_a_missing_one_is_seen() -> None:
    service = Service()
    for i in range(3):
        service.decide("block", subject=f"p{i}")
    bodies = [json.loads(line) for line in service.disk]
    doubled = Safety.replay([*bodies, *bodies], ENFORCING, service.hands, guards=NOBODY)
    assert doubled.state == service.safety.state
    with pytest.raises(DataError, match="change 3 follows on 1"):
        Safety.replay([bodies[0], bodies[2]], ENFORCING, service.hands)


@pytest.mark.parametrize(
    "change",
    [{"act": "sing"}, {"at": [1]}, {"restriction": {}}, {"height": "x"}, {"effect": "bang"}, {"n": None}],
)
def test_a_damaged_body_is_refused_in_words(change: dict) -> None:
    service = Service()
    service.decide("block")
    with pytest.raises(DataError, match="ledger is damaged"):
        Safety.replay([json.loads(service.disk[0]) | change], ENFORCING, service.hands)


def test_memory_stays_bounded() -> None:
    service = Service(
        dataclasses.replace(ENFORCING, restrictions_per_host=1_000, restrictions_per_fleet=1_000)
    )
    for day in range(4):
        for i in range(40):
            service.decide("block", subject=f"{day}-{i}")
            service.decide("alert", subject=f"{day}-{i}")
        service.hands.pass_s(90_000)
        service.safety.tick()
    state = service.safety.state
    assert len(state.real.restrictions) <= 80 and len(state.real.alerts) <= 80
    assert not state.real.open and not state.real.freed and len(state.real.alert_times) <= 40
