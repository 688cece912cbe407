"""Admission: valid events as they are, anything else refused in words of our own, nothing raised, no secret kept."""

import dataclasses
import json
import math
import os
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.features import is_truth
from phalanx.service.admission import Admission, Limits, Reason, Refused
from phalanx.service.canonical import canonical
from phalanx.service.ledger_bodies import event_to_json
from phalanx.service.records import LiveEvent

NOW = 1_800_000_000_000_000_000
SECRET = "hunter2-hunter2"
VALID: dict[str, Any] = {
    "id": "e-1",
    "time_ns": NOW - 5,
    "host": "web-1",
    "subject": "web-1:7",
    "parent": "web-1:1",
    "kind": "EVENT_EXECUTE",
    "path": "/usr/bin/vi",
    "uid": 1000,
    "entropy": 0.5,
    "elevated": False,
    "note": None,
}


def redact(event: LiveEvent) -> LiveEvent:
    values = {
        name: value.replace(SECRET, "***") if isinstance(value, str) else value
        for name, value in event.attributes.items()
    }
    return dataclasses.replace(event, attributes=values)


def admission(**limits: int) -> Admission:
    return Admission(redact, lambda: NOW, Limits(**limits))


def admit(changes: dict[str, Any], without: tuple[str, ...] = (), **limits: int) -> LiveEvent | Refused:
    form = {name: value for name, value in {**VALID, **changes}.items() if name not in without}
    return admission(**limits).admit(json.dumps(form).encode(), 3, "event 3")


def admitted(changes: dict[str, Any], without: tuple[str, ...] = (), **limits: int) -> LiveEvent:
    found = admit(changes, without, **limits)
    assert isinstance(found, LiveEvent), found
    return found


def test_an_event_is_taken_as_it_is() -> None:
    assert admitted({}) == LiveEvent(
        "e-1",
        NOW - 5,
        "web-1",
        "web-1:7",
        "EXECUTE",
        "web-1:1",
        {"path": "/usr/bin/vi", "uid": 1000, "entropy": 0.5, "elevated": False, "note": None},
    )


def test_host_and_parent_may_be_absent() -> None:
    for changes in ({}, {"host": None, "parent": None}):
        event = admitted(changes, () if changes else ("host", "parent"))
        assert (event.host, event.parent) == ("", "")


@pytest.mark.parametrize(
    ("changes", "without", "reason"),
    [
        ({}, ("time_ns",), Reason.MISSING),
        ({}, ("subject",), Reason.MISSING),
        ({}, ("kind",), Reason.MISSING),
        ({"subject": None}, (), Reason.TYPE),
        ({"subject": 7}, (), Reason.TYPE),
        ({"host": ["a"]}, (), Reason.TYPE),
        ({"id": 7}, (), Reason.TYPE),
        ({"subject": ""}, (), Reason.EMPTY),
        ({"kind": " \t"}, (), Reason.EMPTY),
        ({"kind": "EVENT_"}, (), Reason.EMPTY),
        ({"id": ""}, (), Reason.EMPTY),
        ({"subject": "s" * 257}, (), Reason.TOO_LONG),
        ({"subject": "s" + "\u202e" * 50}, (), Reason.TOO_LONG),  # as it is written out
        ({"id": "s" * 129}, (), Reason.TOO_LONG),
        ({"id": "a\nb"}, (), Reason.CHARACTERS),
        ({"id": "a\u202eb"}, (), Reason.CHARACTERS),
        ({"time_ns": 0}, (), Reason.TIME),
        ({"time_ns": -1}, (), Reason.TIME),
        ({"time_ns": 1e18}, (), Reason.TIME),
        ({"time_ns": True}, (), Reason.TIME),
        ({"time_ns": "5"}, (), Reason.TIME),
        ({"time_ns": 2**63}, (), Reason.TIME),
        ({"time_ns": NOW + 300 * 10**9 + 1}, (), Reason.FUTURE),
        ({"a b": 1}, (), Reason.NAME),
        ({"": 1}, (), Reason.NAME),
        ({"x" * 65: 1}, (), Reason.NAME),
        ({"naïve": 1}, (), Reason.NAME),
        ({SECRET: 1}, (), Reason.NAME),
        ({SECRET: []}, (), Reason.NAME),
        ({"size": 2**63}, (), Reason.NUMBER),
        ({"size": -(2**63) - 1}, (), Reason.NUMBER),
        ({"size": {}}, (), Reason.NESTED),
        ({"size": [1]}, (), Reason.NESTED),
        ({f"a{i}": i for i in range(61)}, (), Reason.TOO_MANY),
        ({"path": "x" * 300_000}, (), Reason.TOO_LARGE),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(
    changes: dict[str, Any], without: tuple[str, ...], reason: Reason
) -> None:
    found = admit(changes, without)
    assert isinstance(found, Refused) and found.reason is reason and found.index == 3
    assert found.message.startswith("event 3") and found.remedy


def test_the_edges_are_admitted() -> None:
    edges = {"size": 2**63 - 1, "other": -(2**63), "time_ns": NOW + 300 * 10**9, "subject": "s" * 256}
    assert admitted(edges).attributes["size"] == 2**63 - 1
    assert len(admitted({f"a{i}": i for i in range(59)}).attributes) == 64


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b"null",
        b'"x"',
        b'{"time_ns": NaN}',
        b'{"time_ns": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"time_ns": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(sent: bytes) -> None:
    found = admission().admit(sent)
    assert isinstance(found, Refused) and found.reason in (
        Reason.NOT_JSON,
        Reason.NOT_AN_OBJECT,
        Reason.MISSING,
    )


def test_truth_is_dropped_and_counted() -> None:
    taken = admission()
    form = {**VALID, "label": 1, "campaign": "c", "is_malicious": {"deep": []}, "attack_cat": "x"}
    found = taken.admit(json.dumps(form).encode())
    assert isinstance(found, LiveEvent) and not any(is_truth(name) for name in found.attributes)
    assert taken.counts["dropped"] == 4 and found.attributes == admitted({}).attributes


def test_secrets_do_not_get_in_and_are_not_in_what_is_derived() -> None:
    named = admitted({"command": f"login {SECRET}", "subject": f"sh {SECRET}"}, ("id",))
    assert named.attributes["command"] == "login ***" and named.subject == "sh ***"
    other = admitted({"command": "login ***", "subject": "sh ***"}, ("id",))
    assert named.id == other.id  # else a secret could be guessed from the id


def test_a_text_is_cut_after_its_secrets_are_gone() -> None:
    for before in range(4080, 4100):
        text = admitted({"command": "x" * before + SECRET}).attributes["command"]
        assert text == ("x" * before + "***")[:4096]


def test_no_text_of_a_process_gets_its_event_refused() -> None:
    event = admitted({"subject": "evil\n\x1b[2J\u202e", "host": "h\x00", "command": "\x00\u2028" * 9_000})
    assert event.subject == "evil\\x0a\\x1b[2J\\u202e" and event.host == "h\\x00"
    assert len(str(event.attributes["command"])) == 4096


def test_an_id_is_that_of_the_content() -> None:
    first, again = admitted({}, ("id",)), admitted({}, ("id",))
    assert first.id == again.id and re.fullmatch("[0-9a-f]{32}", first.id)
    changed = [
        admitted({name: value}, ("id",)).id for name, value in {"uid": 0, "kind": "READ", "host": "b"}.items()
    ]
    assert len({first.id, *changed}) == 4
    item = json.dumps({**VALID, "id": None}).encode()
    ids = [admission().admit(item, index, key=key) for key, index in (("k", 0), ("k", 1), ("l", 0), ("k", 0))]
    found = [each.id for each in ids if isinstance(each, LiveEvent)]
    assert found[0] == found[3] and len({first.id, *found}) == 4


def test_bodies_fall_into_events() -> None:
    one, taken = json.dumps(VALID).encode(), admission(events=3)
    assert taken.split(one, lines=False) == [("event 0", one)]
    assert taken.split(b" [ 1 , {} ]", lines=False) == [("event 0", b"1"), ("event 1", b"{}")]
    assert taken.split(b"\n1\r\n\n2", lines=True) == [("line 2", b"1\r"), ("line 4", b"2")]
    for body, lines, reason in (
        (b"[1,2,3,4]", False, Reason.TOO_MANY_EVENTS),
        (b"1\n2\n3\n4", True, Reason.TOO_MANY_EVENTS),
        (b"\n" * 9, True, Reason.TOO_MANY_EVENTS),
        (b"[]", False, Reason.NO_EVENTS),
        (b" ", False, Reason.NO_EVENTS),
        (b"\n\n", True, Reason.NO_EVENTS),
        (b"[1,", False, Reason.NOT_JSON),
        (b"[" * 99_999, False, Reason.NOT_JSON),
    ):
        found = taken.split(body, lines=lines)
        assert isinstance(found, Refused) and found.reason is reason and found.index is None
    assert taken.counts[Reason.TOO_MANY_EVENTS] == 3


def test_a_bad_event_does_not_lose_the_good_ones() -> None:
    taken = admission()
    items = taken.split(b'[{"a": 01e}, ' + json.dumps(VALID).encode() + b', {"x": "\\ud800"}]', lines=False)
    if isinstance(items, Refused):  # broken JSON inside an array leaves no way to tell where events begin
        assert items.reason is Reason.NOT_JSON
    items = taken.split(b'[{"a": 1e999}, ' + json.dumps(VALID).encode() + b", 7]", lines=False)
    assert not isinstance(items, Refused)
    found = [taken.admit(item, i, place) for i, (place, item) in enumerate(items)]
    assert [isinstance(each, LiveEvent) for each in found] == [False, True, False]
    assert taken.counts["admitted"] == 1


# --- whatever is sent -------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.just(f"p={SECRET}")
    | st.just("long" * 2_000)
)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
names = st.sampled_from([*VALID, "label", "command", "a.b-c_d", "bad name", SECRET]) | st.text(max_size=5)
forms = st.dictionaries(names, nested, max_size=6).map(lambda changes: {**VALID, **changes})


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid event, changed in its values and then in its bytes."""
    sent = bytearray(json.dumps(draw(forms)).encode())
    for _ in range(draw(st.integers(0, 3))):
        at, what = draw(st.integers(0, len(sent) - 1)), draw(st.integers(0, 2))
        if what == 0:
            sent[at] = draw(st.integers(0, 255))
        elif what == 1:
            del sent[at : at + draw(st.integers(1, 8))]
        else:
            sent[at:at] = draw(st.binary(max_size=4))
        if not sent:
            return b""
    return bytes(sent)


def check(sent: bytes, taken: Admission) -> None:
    """What must hold of whatever is sent, said again without the admission's own code."""
    found = taken.admit(sent, 0, "event 0")
    if isinstance(found, Refused):
        assert found.reason in Reason
        assert (
            re.fullmatch(r"event 0[ -~]{3,150}", found.message) and SECRET not in found.message + found.remedy
        )
        return
    assert found.id and 0 < found.time_ns <= NOW + 300 * 10**9
    assert found.subject.strip() and found.kind and not found.kind.startswith("EVENT_EVENT_EVENT_")
    for name in (found.id, found.host, found.subject, found.parent, found.kind):
        assert (
            all(ord(c) > 31 and ord(c) not in (0x7F, 0x202E, 0x2028) for c in name) and len(name) <= 6 * 256
        )
    assert len(found.attributes) <= 64
    for name, value in found.attributes.items():
        assert re.fullmatch("[A-Za-z0-9_.-]{1,64}", name) and name not in ("label", "campaign", "stage")
        assert value is None or type(value) in (str, bool, int, float)
        assert not isinstance(value, float) or math.isfinite(value)
        assert not isinstance(value, int) or -(2**63) <= value < 2**63
        assert not isinstance(value, str) or len(value) <= 4096
    text = canonical(event_to_json(found))
    assert SECRET not in text
    assert json.loads(text)["subject"] == found.subject


@given(sent=st.binary(max_size=200))
def test_bytes_never_break_admission(sent: bytes) -> None:
    check(sent, admission())
    for lines in (False, True):
        found = admission(events=8).split(sent, lines=lines)
        assert isinstance(found, Refused) or 1 <= len(found) <= 8


@settings(max_examples=200)
@given(sent=mutated())
def test_changed_events_never_break_admission(sent: bytes) -> None:
    check(sent, admission())


@pytest.mark.slow
def test_a_million_changed_events_never_break_admission() -> None:
    import random

    chance = random.Random(int(os.environ.get("PHALANX_SEED", "0")))
    taken = admission()
    parts = [
        b"null",
        b"1e400",
        b'"\\ud800"',
        b"[[",
        b"}",
        b"\x00",
        b"\xff",
        b'"',
        b",",
        b"-",
        SECRET.encode(),
        b"1" * 50,
    ]
    seed = json.dumps(VALID).encode()
    for _ in range(1_000_000):
        sent = bytearray(seed)
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(sent) + 1)
            sent[at : at + chance.choice([0, 0, 1, 5, 40])] = chance.choice(parts)
        check(bytes(sent), taken)
    assert taken.counts["admitted"] > 100_000 and taken.counts["not-json"] > 100_000


def test_the_check_sees_a_secret() -> None:
    taken = Admission(lambda event: event, lambda: NOW)
    with pytest.raises(AssertionError):
        check(json.dumps({**VALID, "command": SECRET}).encode(), taken)


def test_secrets_are_told_by_the_names_of_attributes() -> None:
    from phalanx.service.redaction import redact_event

    form = {
        **VALID,
        "password": 1234,
        "command": "mysql -phunter2",
        "env": "A=1 API_KEY=abc",
        "secret": "x" * 9_000,
    }
    taken = Admission(redact_event, lambda: NOW)
    for value in (1234, 7, "x", 1234):  # later ones from what is remembered
        found = taken.admit(json.dumps({**form, "password": value, "uid": value}).encode())
        assert isinstance(found, LiveEvent)
        assert found.attributes["password"] == found.attributes["secret"] == "***"
        assert found.attributes["uid"] == value
        assert (found.attributes["command"], found.attributes["env"]) == ("mysql -p***", "A=1 API_KEY=***")
