"""What goes out is OCSF and OpenC2: against golden texts, and facts of both specifications written down here."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from phalanx.service.actors import actor_of
from phalanx.service.clock import Moment
from phalanx.service.commands import Command, commands_of, key_of_beginning
from phalanx.service.ocsf import finding
from phalanx.service.openc2 import openc2
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction, State, restriction_id, target_of
from phalanx.types import Verdict

MS = 1_000_000
NOW = Moment(1_800_000_000_000 * MS, 5)
LATER = Moment(1_800_000_300_000 * MS, 305)
EVENT = LiveEvent(
    "e1",
    1_799_999_999_999 * MS,
    "web-1",
    "p7",
    "WRITE",
    "p1",
    {"path": "/etc/passwd", "pid": 4242, "exe": "/usr/bin/vi", "command": "vi /etc/passwd --token ***"},
)
DECISION = LiveDecision(
    "e1",
    EVENT.time_ns,
    "web-1",
    "p7",
    Verdict.BLOCK,
    (Verdict.BLOCK, Verdict.QUARANTINE, None, Verdict.BLOCK),
    True,
    0.876,
    False,
    {"ban": float("-inf"), "budget": 1.5},
    ("e0", "e1"),
    "abc123",
    1,
)


def begun(verdict: Verdict, *, asked: bool = False) -> Restriction:
    target = target_of(EVENT, verdict)
    waits = Restriction(
        restriction_id("e1", 9, verdict, target),
        target,
        verdict,
        "e1",
        9,
        900_000 * MS,
        NOW,
        wait_ns=600_000 * MS,
        actor=actor_of(EVENT),
    )
    return waits if asked else waits.apply(NOW)


def command_of(act: str, restriction: Restriction, at: Moment = NOW) -> Command:
    body = {
        "act": act,
        "n": 1,
        "at": at.as_json(),
        "restriction": restriction.as_json(),
        "reasons": ["approval"],
    }
    (command,) = commands_of(body)
    return command


BLOCK, QUARANTINE = begun(Verdict.BLOCK), begun(Verdict.QUARANTINE)
ALERT = commands_of(
    {
        "act": "alert",
        "n": 1,
        "at": NOW.as_json(),
        "height": 9,
        "event": "e1",
        "host": "web-1",
        "subject": "p7",
        "reasons": ["cooldown"],
        "send": True,
    }
)[0]
COMMANDS = {
    "alert": ALERT,
    "ask": command_of("restrict", begun(Verdict.QUARANTINE, asked=True)),
    "drop": command_of("refuse", begun(Verdict.QUARANTINE, asked=True).end(State.REFUSED, NOW, by="ann")),
    "deny": command_of("restrict", BLOCK),
    "contain": command_of("restrict", QUARANTINE),
    "contain after approval": command_of(
        "approve", begun(Verdict.QUARANTINE, asked=True).apply(NOW, by="ann", why="seen")
    ),
    "allow, over": command_of("expire", BLOCK.end(State.EXPIRED, LATER), LATER),
    "allow, lifted": command_of("lift", QUARANTINE.end(State.LIFTED, LATER, by="ann", why="ours"), LATER),
}

# (activity, action, disposition, status, severity) of the table in the module
EXPECTED = {
    "alert": (1, 3, 19, 1, 4),
    "ask": (1, 3, 19, 1, 5),
    "drop": (3, 3, 19, 3, 5),
    "deny": (1, 2, 2, 2, 4),
    "contain": (1, 2, 3, 2, 5),
    "contain after approval": (2, 2, 3, 2, 5),
    "allow, over": (3, 1, 1, 4, 4),
    "allow, lifted": (3, 1, 1, 3, 5),
}

# Facts of OCSF 1.8: attribute -> its captions by id.
CAPTIONS = {
    "activity_id": {1: "Create", 2: "Update", 3: "Close"},
    "status_id": {1: "New", 2: "In Progress", 3: "Suppressed", 4: "Resolved"},
    "action_id": {1: "Allowed", 2: "Denied", 3: "Observed"},
    "disposition_id": {1: "Allowed", 2: "Blocked", 3: "Quarantined", 4: "Isolated", 19: "Alert"},
    "severity_id": {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"},
}
NAMES = {"activity_id": "activity_name"}
REQUIRED = (
    "activity_id",
    "category_uid",
    "class_uid",
    "finding_info",
    "metadata",
    "severity_id",
    "time",
    "type_uid",
)
KNOWN = {
    *REQUIRED,
    *(
        "activity_name",
        "category_name",
        "class_name",
        "type_name",
        "severity",
        "status_id",
        "status",
        "message",
    ),
    *("action_id", "action", "disposition_id", "disposition", "is_alert", "device", "evidences", "unmapped"),
    *("start_time", "end_time", "confidence_score"),
}


def check_ocsf(found: Mapping[str, Any]) -> None:
    assert not [name for name in REQUIRED if name not in found]
    assert set(found) <= KNOWN
    assert (found["category_uid"], found["class_uid"]) == (2, 2004)
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    for name, captions in CAPTIONS.items():
        assert found[NAMES.get(name, name.removesuffix("_id"))] == captions[found[name]]
    assert found["metadata"]["product"]["vendor_name"] and re.fullmatch(
        r"1\.\d+\.\d+", found["metadata"]["version"]
    )
    assert found["metadata"]["profiles"] == [
        "security_control"
    ]  # what action_id and disposition_id come with
    assert found["finding_info"]["uid"]
    assert found["device"]["hostname"] and "type_id" in found["device"]
    assert 10**12 < found["time"] < 10**13 and 0 <= found.get("confidence_score", 0) <= 100
    (evidence,) = found["evidences"]
    assert evidence["process"].keys() & {"pid", "uid"}
    for file in [evidence.get("file"), evidence["process"].get("file")]:
        assert file is None or (file["name"] and "type_id" in file)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("known", [True, False])
def test_findings_are_those_of_the_table(name: str, known: bool) -> None:
    found = finding(COMMANDS[name], EVENT if known else None, DECISION if known else None)
    check_ocsf(found)
    ids = tuple(found[k] for k in ("activity_id", "action_id", "disposition_id", "status_id", "severity_id"))
    expected = EXPECTED[name]
    if name == "alert" and not known:
        expected = (*expected[:4], 3)  # the verdict is not known any more
    assert ids == expected
    assert found["is_alert"] == (found["activity_id"] == 1)


def test_one_restriction_is_one_finding_from_its_creation_to_its_close() -> None:
    uids = {finding(COMMANDS[name])["finding_info"]["uid"] for name in ("deny", "allow, over")}
    assert uids == {BLOCK.id}
    events = {finding(command)["metadata"]["uid"] for command in COMMANDS.values()}
    assert events == {command.key for command in COMMANDS.values()}


def test_what_waits_is_called_by_what_it_would_be() -> None:
    asked = command_of("restrict", begun(Verdict.BLOCK, asked=True))
    assert finding(asked)["finding_info"]["title"] == "Block waits for approval"
    assert finding(COMMANDS["ask"])["message"].startswith("Quarantine waits for approval: ")
    opened, closed = (finding(COMMANDS[name])["finding_info"]["uid"] for name in ("ask", "drop"))
    assert opened == closed


def test_the_golden_finding() -> None:
    found = finding(COMMANDS["deny"], EVENT, DECISION, schema="1.7.0")
    found["metadata"]["product"]["version"] = "0"
    assert found == {
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "activity_id": 1,
        "activity_name": "Create",
        "type_uid": 200401,
        "type_name": "Detection Finding: Create",
        "time": 1_800_000_000_000,
        "start_time": 1_799_999_999_999,
        "end_time": 1_799_999_999_999,
        "severity_id": 4,
        "severity": "High",
        "status_id": 2,
        "status": "In Progress",
        "action_id": 2,
        "action": "Denied",
        "disposition_id": 2,
        "disposition": "Blocked",
        "is_alert": True,
        "confidence_score": 88,
        "message": "Activity blocked: p7 on web-1",
        "metadata": {
            "version": "1.7.0",
            "uid": COMMANDS["deny"].key,
            "profiles": ["security_control"],
            "product": {"name": "phalanx", "vendor_name": "phalanx", "version": "0"},
        },
        "finding_info": {
            "uid": BLOCK.id,
            "title": "Activity blocked",
            "created_time": 1_800_000_000_000,
            "analytic": {
                "name": "phalanx committee",
                "type_id": 4,
                "type": "Learning (ML/DL)",
                "version": "abc123",
            },
            "related_events": [{"uid": "e0"}, {"uid": "e1"}],
            "related_events_count": 2,
        },
        "device": {"hostname": "web-1", "type_id": 0, "type": "Unknown"},
        "evidences": [
            {
                "uid": "e1",
                "process": {
                    "uid": "p7",
                    "pid": 4242,
                    "name": "vi",
                    "file": {"name": "vi", "path": "/usr/bin/vi", "type_id": 0, "type": "Unknown"},
                    "parent_process": {"uid": "p1"},
                    "cmd_line": "vi /etc/passwd --token ***",
                },
                "file": {"name": "passwd", "path": "/etc/passwd", "type_id": 0, "type": "Unknown"},
                "data": {
                    "kind": "WRITE",
                    "target": {"host": "web-1", "subject": "p7", "object": "/etc/passwd"},
                },
            }
        ],
        "unmapped": {
            "phalanx": {
                "event": "e1",
                "height": 9,
                "reasons": ["approval"],
                "restriction": {
                    "id": BLOCK.id,
                    "state": "active",
                    "duration_ms": 900_000,
                    "by": "",
                    "why": "",
                },
                "verdict": "block",
                "votes": ["block", "quarantine", None, "block"],
                "dissent": [1],
                "quorum": True,
                "shielded": False,
                "robustness": {"ban": "-inf", "budget": 1.5},
                "model": "abc123",
                "tolerates": 1,
            }
        },
    }


def test_messages_hold_nothing_that_turns_a_terminal() -> None:
    odd = dataclasses.replace(ALERT, host="h\x1b[2J", subject="\u202e" * 500)
    found = finding(odd)
    assert found["message"].isprintable() and len(found["message"]) < 400
    assert found["device"]["hostname"] == "h\x1b[2J"  # identifiers stay what they are; JSON escapes them


PAGE = commands_of({"act": "page", "n": 1, "at": NOW.as_json(), "reason": "host-rate", "host": "h"})[0]


def test_a_page_is_neither_finding_nor_command() -> None:
    with pytest.raises(ValueError, match="no finding"):
        finding(PAGE)
    for command in (PAGE, ALERT, COMMANDS["ask"], COMMANDS["drop"]):
        with pytest.raises(ValueError, match="no command of OpenC2"):
            openc2(command)


def check_openc2(made: Mapping[str, Any]) -> None:
    assert set(made) == {"action", "target", "args", "actuator", "command_id"}
    assert made["action"] in ("deny", "contain", "allow")  # of the 20 of the specification
    assert len(made["target"]) == 1  # exactly one type
    process = made["target"]["process"]
    assert process and set(process) <= {"pid", "name", "cwd", "executable", "parent", "command_line"}
    assert isinstance(process.get("pid", 0), int) and process.get("pid", 0) >= 0
    assert set(process.get("executable", {"path": ""})) <= {"name", "path", "hashes"}
    args = made["args"]
    assert isinstance(args["duration"], int) and args["duration"] > 0  # without one it would be for ever
    timed = [name for name in ("start_time", "stop_time", "duration") if name in args]
    assert len(timed) <= 2
    assert args["response_requested"] in ("none", "ack", "status", "complete")
    extensions = set(args) - {"start_time", "stop_time", "duration", "response_requested"}
    assert all(name.startswith("x-") for name in [*extensions, *made["actuator"]])
    assert re.fullmatch(r"\S{1,36}", made["command_id"])
    json.dumps(made, allow_nan=False)


SENT = [name for name in COMMANDS if name not in ("alert", "ask", "drop")]


@pytest.mark.parametrize("name", SENT)
def test_commands_are_openc2_and_always_end(name: str) -> None:
    made = openc2(COMMANDS[name])
    check_openc2(made)
    assert made["action"] == COMMANDS[name].action and made["command_id"] == COMMANDS[name].key


def test_an_allow_says_what_it_undoes() -> None:
    for begin, end in (("deny", "allow, over"), ("contain", "allow, lifted")):
        undoes = openc2(COMMANDS[end])["args"]["x-phalanx"]["undoes"]
        assert undoes == openc2(COMMANDS[begin])["command_id"] == COMMANDS[begin].key
    assert key_of_beginning(BLOCK) != key_of_beginning(QUARANTINE)


def test_the_golden_command() -> None:
    assert openc2(COMMANDS["contain after approval"]) == {
        "action": "contain",
        "target": {"process": {"name": "vi", "pid": 4242, "executable": {"path": "/usr/bin/vi"}}},
        "args": {
            "start_time": 1_800_000_000_000,
            "duration": 900_000,
            "response_requested": "ack",
            "x-phalanx": {
                "subtree": True,
                "host": "web-1",
                "subject": "p7",
                "restriction": QUARANTINE.id,
                "event": "e1",
                "height": 9,
            },
        },
        "actuator": {"x-phalanx": {"hostname": "web-1"}},
        "command_id": COMMANDS["contain"].key,
    }
    block = openc2(COMMANDS["deny"])["args"]["x-phalanx"]
    assert block["object"] == "/etc/passwd" and block["subtree"] is False


def test_a_duration_is_never_zero() -> None:
    short = dataclasses.replace(BLOCK, duration_ns=1)
    assert openc2(command_of("restrict", short))["args"]["duration"] == 1


def test_what_is_not_known_of_a_process_is_left_out() -> None:
    unknown = dataclasses.replace(BLOCK, actor=None)
    assert openc2(command_of("restrict", unknown))["target"] == {"process": {"name": "p7"}}
    check_ocsf(finding(command_of("restrict", unknown)))
