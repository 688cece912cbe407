"""Policies are read key by key, allow rules are narrow and end, and who acted is found in what sensors write."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError, UsageError
from phalanx.service.actors import Actor, actor_of, lineage
from phalanx.service.clock import Moment
from phalanx.service.guards import AllowRule, Guards, allowed_by
from phalanx.service.policy import SafetyPolicy, read_policy
from phalanx.service.records import LiveEvent, Value

RULE = 'reason = "nightly"\nexpires = 2027-01-31\n'


def policy_of(tmp_path: Path, text: str) -> SafetyPolicy:
    path = tmp_path / "safety.toml"
    path.write_text(text)
    return read_policy(path)


def test_the_defaults_are_those_promised(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "")
    assert policy == SafetyPolicy()
    assert not policy.enforce and policy.approve_quarantine and not policy.approve_block
    assert (policy.block_s, policy.quarantine_s) == (900, 600)
    assert (policy.restrictions_per_host, policy.restrictions_per_fleet) == (10, 50)


def test_every_key_can_be_given(tmp_path: Path) -> None:
    given_ = {
        "approve_quarantine": "false",
        "approve_block": "true",
        "block_s": "1",
        "quarantine_s": "2",
        "approval_s": "3",
        "cooldown_s": "4",
        "restrictions_per_host": "5",
        "restrictions_per_fleet": "6",
        "alerts": "7",
        "alert_repeat_s": "8",
        "page_repeat_s": "9",
        "alert_in_shadow": "true",
        "require_pid": "true",
        "host": '"web-1"',
        "programs": '["/usr/bin/x"]',
        "subjects": '["db-*:root"]',
        "allow": '[{reason = "r", expires = 2027-01-31, subject = "job-*"}]',
    }
    assert set(given_) == {field.name for field in fields(SafetyPolicy)} - {"enforce"}
    policy = policy_of(tmp_path, "\n".join(f"{name} = {value}" for name, value in given_.items()))
    default = SafetyPolicy()
    assert not [name for name in given_ if getattr(policy, name) == getattr(default, name)]
    assert policy.programs == ("/usr/bin/x",) and policy.block_s == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "block = 7",
            r"unknown key in .*safety\.toml: 'block'; choose one of: .*did you mean 'block_s'",
        ),
        ("enforce = true", r"safety\.toml: enforce is no key; .*--enforce"),
        ("enforce = false", r"safety\.toml: enforce is no key; .*--enforce"),
        ("approve_block = 1", "approve_block = 1; expected bool"),
        ("block_s = true", "block_s = True; expected int"),
        ("block_s = 0", r"safety\.toml: block_s = 0; expected 1 to 86400"),
        ("block_s = 86401", "expected 1 to 86400"),
        ("approval_s = 3601", "approval_s = 3601; expected 1 to 3600"),
        ('programs = "x"', "expected a list of texts"),
        ('programs = [""]', "expected a list of texts"),
        ("allow = 3", r"expected tables, \[\[allow\]\]"),
        ("allow = [3]", "allow rule 1: 3; expected a table"),
        ("[[allow]]\nexpires = 2027-01-31\npath = '/a/b'", "without a reason"),
        ("[[allow]]\nreason = ' '\nexpires = 2027-01-31\npath = '/a/b'", "without a reason"),
        ("[[allow]]\nreason = 'r'\npath = '/a/b'", "never ends"),
        (f"[[allow]]\n{RULE}pathh = '/a/b'", "unknown key in .* allow rule 1: 'pathh'"),
        (f"[[allow]]\n{RULE}path = 'a/b'", "expected an absolute path"),
        (f"[[allow]]\n{RULE}path = 7", "path = 7; expected str"),
        (f"[[allow]]\n{RULE}alert = 1\npath = '/a/b'", "alert = 1; expected bool"),
        ("[[allow]]\nreason = 'r'\nexpires = 'soon'\npath = '/a/b'", "expires = 'soon'; expected a date"),
        ("[[allow]]\nreason = 'r'\nexpires = 12\npath = '/a/b'", "expires = 12; expected a date"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        policy_of(tmp_path, text)


def test_files_that_cannot_be_read_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a JSON or TOML safety policy"):
        policy_of(tmp_path, "block_s = ")
    with pytest.raises(DataError, match="cannot read"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match="table of keys"):
        read_policy(tmp_path / "list.json")


def test_whether_anything_takes_effect_is_said_by_who_starts_it(tmp_path: Path) -> None:
    path = tmp_path / "safety.toml"
    path.write_text("block_s = 60")
    assert not read_policy(path).enforce and read_policy(path, enforce=True).enforce


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"path": "/"},
        {"path": "//"},
        {"path": "/usr"},
        {"path": "/usr/../.."},
        {"executable": "/bin/.."},
        {"host": "*"},
        {"host": "??*"},
        {"host": "[a-z]*"},
        {"host": "*a*"},
        {"subject": "*", "host": "*[0-9]"},
        {"kind": "WRITE"},
    ],
)
def test_rules_that_fit_nearly_everything_are_refused(scope: dict) -> None:
    with pytest.raises(UsageError, match="nearly"):
        AllowRule.of({"reason": "r", "expires": "2027-01-31"} | scope)


@pytest.mark.parametrize(
    "scope", [{"host": "db-*"}, {"subject": "job-7"}, {"path": "/srv/backup"}, {"path": "/srv", "host": "db"}]
)
def test_narrower_ones_are_taken_and_survive_their_json(scope: dict) -> None:
    rule = AllowRule.of({"reason": "r", "expires": "2027-01-31"} | scope)
    assert AllowRule.of(rule.as_json()) == rule
    assert rule.id != AllowRule.of(rule.as_json() | {"reason": "s"}).id


def test_dates_are_utc_unless_they_say_otherwise() -> None:
    def expiry(when: str) -> int:
        return AllowRule.of({"reason": "r", "expires": when, "path": "/a/b"}).expires_ns // 10**9

    assert expiry("2027-01-31") == expiry("2027-01-31T00:00:00Z") == 1_801_353_600
    assert expiry("2027-01-31T01:00:00+01:00") == 1_801_353_600


segments = st.lists(st.sampled_from(["a", "b", "..", ".", ""]), max_size=6)


@given(segments, segments)
def test_a_path_is_below_a_folder_if_walking_it_ends_there(path: list[str], folder: list[str]) -> None:
    def walk(parts: list[str]) -> list[str]:
        place: list[str] = []
        for part in parts:
            if part == "..":
                place = place[:-1]
            elif part not in (".", ""):
                place.append(part)
        return place

    rule = AllowRule("r", 10, host="hh", path="/" + "/".join(folder))
    expected = walk(path)[: len(walk(folder))] == walk(folder)
    assert rule.fits(Actor("hh", "p", path="/" + "/".join(path))) == expected


def test_a_relative_path_is_below_nothing() -> None:
    assert not AllowRule("r", 10, path="/srv/a").fits(Actor("h", "p", path="srv/a"))
    assert not AllowRule("r", 10, path="/srv/a").fits(Actor("h", "p"))


def test_all_of_a_rule_has_to_fit() -> None:
    rule = AllowRule("r", 10, "db-*", "job-*", "/opt/x", "/srv", "WRITE")
    actor = Actor("db-1", "job-1", "WRITE", executable="/opt/x/run", path="/srv/a")
    assert rule.fits(actor)
    for change in (
        {"host": "web"},
        {"subject": "p"},
        {"executable": "/opt"},
        {"path": "/s"},
        {"kind": "READ"},
    ):
        assert not rule.fits(replace(actor, **change))


def test_of_two_rules_the_one_without_alerts_wins_and_none_when_over() -> None:
    loud, quiet = AllowRule("a", 10, path="/srv/a", alert=True), AllowRule("b", 5, path="/srv/a")
    actor = Actor("h", "p", path="/srv/a")
    assert allowed_by([loud, quiet], actor, Moment(4, 0)) == quiet
    assert allowed_by([loud, quiet], actor, Moment(5, 0)) == loud
    assert allowed_by([loud, quiet], actor, Moment(10, 0)) is None


@pytest.mark.parametrize(
    ("attributes", "subject", "expected"),
    [
        ({}, "p", (None, "", "", "")),
        ({"pid": 7, "comm": "sh"}, "p", (7, "", "sh", "")),
        ({"process_pid": "7", "exe": "/bin/sh"}, "p", (7, "/bin/sh", "", "")),
        ({"pid": None, "tgid": 8.0, "object": "1.2.3.4:22"}, "p", (8, "", "", "1.2.3.4:22")),
        ({"pid": True}, "12", (None, "", "", "")),
        ({"pid": "x"}, "12", (None, "", "", "")),
        ({"pid": 1.5}, "p", (None, "", "", "")),
        ({"pid": float("inf")}, "p", (None, "", "", "")),
        ({"pid": float("nan")}, "p", (None, "", "", "")),
        ({}, "pid=31", (31, "", "", "")),
        ({}, "12345678901", (None, "", "", "")),
        ({}, "1e3", (None, "", "", "")),
        ({}, "\u0661", (None, "", "", "")),
    ],
)
def test_who_acted(
    attributes: dict[str, Value], subject: str, expected: tuple[int | None, str, str, str]
) -> None:
    actor = actor_of(LiveEvent("e", 0, "h", subject, "READ", attributes=attributes))
    assert (actor.pid, actor.executable, actor.name, actor.path) == expected
    assert Actor.of(actor.as_json()) == actor


def test_ancestors_are_the_parent_unless_more_are_known() -> None:
    event = LiveEvent("e", 0, "h", "p", "READ", parent="q")
    assert actor_of(event).ancestors == ("q",)
    assert actor_of(event, ["q", "r"]).ancestors == ("q", "r")


def test_the_lineage_of_a_process_ends_with_the_first_of_all() -> None:
    code = "from phalanx.service.actors import lineage; print(*lineage())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = tuple(map(int, done.stdout.split()))
    own = lineage()
    assert found[1:] == own and own[0] == os.getpid() and len(set(own)) == len(own)


def test_a_lineage_of_odd_names_circles_and_missing_processes_ends(tmp_path: Path) -> None:
    for pid, parent in ((9, 8), (8, 7), (7, 9)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes(b"%d (a) b (c\xff) S %d 0" % (pid, parent))
    assert lineage(9, tmp_path) == (9, 8, 7)
    assert lineage(5, tmp_path) == (5,)
    assert lineage(os.getpid(), tmp_path) == (os.getpid(), os.getppid())


@given(st.text(), st.text(), st.text(), st.none() | st.integers())
def test_guards_stand_anything(host: str, subject: str, executable: str, pid: int | None) -> None:
    guards = Guards("h", own=(5,), subjects=("[", "a[b", "*:*x", ":"))
    found = guards.why(Actor(host, subject, executable=executable, pid=pid))
    assert (pid is None or pid > 1) or found == "PID 1"


def test_the_documented_policy_is_the_default_one(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "live-safety.md").read_text()
    (tmp_path / "safety.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    policy = read_policy(tmp_path / "safety.toml")
    assert [rule.host for rule in policy.allow] == ["db-*"]
    assert dataclasses.replace(policy, allow=()) == SafetyPolicy()
