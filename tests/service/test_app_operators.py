"""Operators over HTTP: approval, undo, the kill switch, the mode, labels."""

import pytest
from service.apps import NOW, code, sent, site
from service.desks import HandDesk

from phalanx.service.policy import SafetyPolicy

ENFORCING = SafetyPolicy(enforce=True)


def test_a_quarantine_waits_is_approved_and_undone() -> None:
    with site(HandDesk(ENFORCING)) as here:
        result = here.ask("POST", "/v1/events", "", sent(1, want="quarantine")).json()["results"][0]
        assert (result["verdict"], result["effect"], result["reasons"]) == ("quarantine", "ask", ["approval"])
        name = result["restriction"]
        listed = here.ask("GET", "/v1/restrictions").json()["restrictions"]
        assert [(each["id"], each["state"]) for each in listed] == [(name, "pending")] and listed[0][
            "ends_ns"
        ] > NOW
        approved = here.ask("POST", f"/v1/restrictions/{name}/approve", "", {"why": "seen\nit"}).json()
        assert (approved["state"], approved["by"], approved["why"]) == ("active", "approveer", "seen\\x0ait")
        assert here.metric("restrictions", state="active") == 1
        late = here.ask("POST", f"/v1/restrictions/{name}/deny")
        assert late.status_code == 409
        assert late.json()["error"]["remedy"] == "See GET /v1/restrictions?state=all"
        assert here.ask("POST", f"/v1/restrictions/{name}/undo").json()["state"] == "lifted"
        assert here.ask("GET", "/v1/restrictions").json()["restrictions"] == []
        every = here.ask("GET", "/v1/restrictions?state=all").json()["restrictions"]
        assert [each["state"] for each in every] == ["lifted"]
        for action in ("approve", "deny", "undo"):
            assert here.ask("POST", f"/v1/restrictions/r-none/{action}").status_code == 404


def test_the_switch_stops_everything_at_once() -> None:
    with site(HandDesk(ENFORCING)) as here:
        assert (
            here.ask("POST", "/v1/events", "", sent(1, want="block")).json()["results"][0]["effect"]
            == "block"
        )
        killed = here.ask("POST", "/v1/kill", "", {"why": "a drill"}).json()
        assert killed == {"mode": "enforce", "killed": True, "fallback": ""}
        assert here.ask("GET", "/v1/restrictions").json()["restrictions"] == []
        after = here.ask("POST", "/v1/events", "", sent(2, want="block", subject="q")).json()["results"][0]
        assert (after["effect"], after["reasons"]) == ("alert", ["killed"])
        assert here.ask("GET", "/healthz", None).json()["notes"] == ["killed"]
        assert here.metric("killed") == 1
        assert here.ask("POST", "/v1/release").json()["killed"] is False
        last = here.ask("POST", "/v1/events", "", sent(3, want="block", subject="r")).json()["results"][0]
        assert last["effect"] == "block"


def test_the_mode_is_changed_and_told() -> None:
    with site(HandDesk(ENFORCING)) as here:
        shadow = here.ask("POST", "/v1/mode", "", {"mode": "shadow"}).json()
        assert shadow["mode"] == "shadow" and shadow["fallback"] == "asked for by 'killer'"
        result = here.ask("POST", "/v1/events", "", sent(1, want="block")).json()
        assert result["mode"] == "shadow"
        assert (result["results"][0]["effect"], result["results"][0]["would"]) == ("none", "block")
        assert here.ask("GET", "/healthz", None).json() == {
            "status": "ok",
            "mode": "shadow",
            "notes": ["fallback"],
        }
        assert here.ask("POST", "/v1/mode", "", {"mode": "enforce"}).json()["mode"] == "enforce"
    with site() as here:
        assert here.ask("POST", "/v1/mode", "", {"mode": "enforce"}).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/mode", b""),
        ("/v1/mode", b"{}"),
        ("/v1/mode", b'{"mode": "off"}'),
        ("/v1/mode", b'{"mode": "shadow", "more": 1}'),
        ("/v1/kill", b"[]"),
        ("/v1/kill", b'{"why": 7}'),
        ("/v1/kill", b'{"why": "' + b"x" * 501 + b'"}'),
        ("/v1/kill", b'{"why": "\xff"}'),
        ("/v1/labels", b"[]"),
        ("/v1/labels", b'[{"id": "e"}]'),
        ("/v1/labels", b'[{"id": "e", "malicious": 1}]'),
        ("/v1/labels", b"[" * 5000),
    ],
)
def test_an_operators_body_is_of_one_form(path: str, body: bytes) -> None:
    with site() as here:
        answer = here.ask("POST", path, "", body)
        assert (answer.status_code, code(answer)) == (400, "bad-request")
        remedy = answer.json()["error"]["remedy"]
        assert {"/v1/mode": '"shadow" or "enforce"', "/v1/kill": '"why"'}.get(
            path, "1"
        ) in remedy or "malicious" in remedy
        assert not here.worker.status.killed


def test_a_label_of_another_form_is_named_and_nothing_is_taken() -> None:
    taken: list[tuple[str, bool]] = []
    with site(label=lambda desk, labels: taken.extend(labels) or 1) as here:
        labels = [{"id": f"e{number}", "malicious": True} for number in range(5)]
        bad = here.ask("POST", "/v1/labels", "", [*labels, {"id": "e5", "malicious": "<secret>"}])
        said = "the body is not of the form that is expected at $[5].malicious; nothing was taken"
        assert bad.status_code == 400 and bad.json()["error"]["message"] == said
        worse = here.ask("POST", "/v1/labels", "", [{"id": "e5", "malicious": True, "<secret>": 1}])
        assert worse.status_code == 400 and "secret" not in worse.text
        assert not taken
        forged = here.ask("POST", "/v1/kill", "", {"x - at `$.hunter.secret": 1})
        assert forged.status_code == 400 and "secret" not in forged.text


def test_labels_are_handed_on() -> None:
    taken: list[tuple[str, bool]] = []
    with site(label=lambda desk, labels: taken.extend(labels) or 1) as here:
        answer = here.ask(
            "POST", "/v1/labels", "", [{"id": "a", "malicious": True}, {"id": "b", "malicious": False}]
        )
        assert answer.json() == {"taken": 1, "unknown": 1} and taken == [("a", True), ("b", False)]
