"""The HTTP interface: who may ask, what is taken, what is answered, what is counted; nothing lost, nothing leaked."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from service.apps import NDJSON, NOW, SECRET, TOKENS, Raw, code, lines, sent, site
from service.desks import HandDesk

from phalanx.service.endpoints import HttpConfig
from phalanx.service.ledger import LedgerBrokenError, LedgerFullError
from phalanx.service.openapi import PATHS
from phalanx.service.policy import SafetyPolicy
from phalanx.service.tokens import SCOPES
from phalanx.service.worker import QueueConfig

ENFORCING = SafetyPolicy(enforce=True)


def concrete(path: str) -> str:
    return path.replace("{event_id:path}", "e1").replace("{restriction_id}", "r-1")


# --- who may ask ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_endpoint_asks_for_its_scope(path: Any) -> None:
    with site() as here:
        for token in (None, "x" * 40, *SCOPES):
            answer = here.ask(path.method, concrete(path.path), token, b"" if path.body else None)
            if not path.scope:
                assert answer.status_code == 200
            elif token not in SCOPES:
                assert answer.status_code == 401 and code(answer) == "unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"
            elif token != path.scope:
                assert answer.status_code == 403 and code(answer) == "forbidden"
            else:
                assert answer.status_code not in (401, 403)
        if path.scope:
            assert here.metric("requests_refused_total", reason="unauthorized") == 2
            assert here.metric("requests_refused_total", reason="forbidden") == 3
        assert not here.desk.batches


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKENS['read']}",
        TOKENS["read"],
        f"Bearer {TOKENS['read']}x",
        "Bearer \x00",
    ],
)
def test_other_forms_of_a_token_are_none(header: str) -> None:
    with site() as here:
        assert here.ask("GET", "/v1/ledger/head", None, authorization=header).status_code == 401
        assert (
            here.ask("GET", "/v1/ledger/head", None, authorization=f"bearer  {TOKENS['read']}").status_code
            == 200
        )


def test_a_token_is_looked_at_before_the_body() -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(1)
            yield b"x" * 1000

    with site() as here:
        raw = Raw([{"type": "http.request", "body": b"x", "more_body": True}] * 100)
        status, headers, _ = raw.ask(here, "POST", "/v1/events", {b"transfer-encoding": b"chunked"})
        assert status == 401 and raw.received == 0
        assert headers[b"connection"] == b"close"  # nobody reads the rest


# --- events -----------------------------------------------------------------------------------------------------


def test_one_event_several_and_lines_are_answered_alike() -> None:
    with site() as here:
        for number, (content, headers) in enumerate(
            [
                (sent(1), {}),
                ([sent(2), sent(3)], {}),
                (lines([sent(4), sent(5)]), NDJSON),
                (b"\r\n" + lines([sent(6)]).strip(), NDJSON),
                (sent(7), {"content_type": "application/json; charset=utf-8"}),
            ]
        ):
            answer = here.ask("POST", "/v1/events", "", content, **headers)
            assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
            body = answer.json()
            assert (
                body["refused"] == 0 and body["mode"] == "shadow" and body["decided"] == len(body["results"])
            )
            for index, result in enumerate(body["results"]):
                assert result["index"] == index and result["verdict"] == "allow" and result["height"] >= 1
                assert not result["repeated"] and result["effect"] == "none" and result["quorum"] is True
            assert number < 5
        decided = [name for batch in here.desk.batches for name in batch]
        assert decided == ["e1", "e2", "e3", "e4", "e5", "e6", "e7"]
        assert here.metric("events_total", outcome="decided") == 7
        assert here.metric("verdicts_total", verdict="allow") == 7


def test_a_bad_event_does_not_lose_the_good_ones() -> None:
    events = [sent(1), sent(2, subject=""), 7, sent(3, when={"a": 1}), sent(4, time_ns=NOW * 2), sent(5)]
    with site() as here:
        for content, headers in ((events, {}), (lines(events), NDJSON)):
            body = here.ask("POST", "/v1/events", "", content, **headers).json()
            assert (body["decided"], body["refused"]) == (2, 4)
            found = [result.get("id") or result["error"]["code"] for result in body["results"]]
            assert found == ["e1", "empty-field", "not-an-object", "nested", "in-the-future", "e5"]
        here.worker.act(lambda desk: None).result(20)  # what was answered has been counted, too
        assert here.metric("events_refused_total", reason="nested") == 2
        assert here.metric("events_total", outcome="refused") == 8
        assert here.metric("events_total", outcome="decided") == 2
        assert here.metric("events_total", outcome="repeated") == 2


def test_where_nothing_was_decided_the_status_says_so() -> None:
    with site() as here:
        answer = here.ask("POST", "/v1/events", "", [sent(1, kind=""), 3])
        assert answer.status_code == 400 and answer.json()["refused"] == 2


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"", {}, 400, "no-events"),
        (b"[]", {}, 400, "no-events"),
        (b"[", {}, 400, "not-json"),
        (b"[" + b"1," * 1024 + b"1]", {}, 413, "too-many-events"),
        (b"1\n" * 1025, NDJSON, 413, "too-many-events"),
        (b"{}", {"content_type": "text/plain"}, 415, "unsupported-media-type"),
        (b"{}", {"content_type": "application/json; charset=latin-1"}, 415, "unsupported-media-type"),
        (b"{}", {"content_encoding": "gzip"}, 415, "unsupported-media-type"),
        (b"{}", {"idempotency_key": "k" * 129}, 400, "bad-header"),
        (b"{}", {"idempotency_key": ""}, 400, "bad-header"),
        (b"x" * (2**20 + 1), {}, 413, "too-large"),
        (b"x" * (20 * 2**20), {}, 413, "too-large"),
    ],
)
def test_what_is_no_request_is_refused_and_counted(
    content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    with site() as here:
        answer = here.ask("POST", "/v1/events", "", content, **headers)
        assert (answer.status_code, code(answer)) == (status, reason)
        refused = here.backend.metrics.text().decode()
        assert f'reason="{reason}"}} 1.0' in refused or 'reason="bad-request"} 1.0' in refused
        assert here.ask("POST", "/v1/events", "", sent(1)).status_code == 200


def test_a_body_is_not_read_beyond_its_limit_whatever_its_headers_say() -> None:
    async def much() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 1000

    with site(config=HttpConfig(body_bytes=10_000)) as here:
        answer = here.ask("POST", "/v1/events", "", much())  # chunked, no length
        assert (answer.status_code, code(answer)) == (413, "too-large")
        told = {b"content-length": b"5", b"content-type": b"application/json"}
        raw = Raw([{"type": "http.request", "body": b"y" * 20_000, "more_body": False}])
        assert raw.ask(here, "POST", "/v1/events", told, TOKENS["ingest"])[0] == 413
        endless = Raw([{"type": "http.request", "body": b"y" * 2**20, "more_body": True}] * 100)
        assert endless.ask(here, "POST", "/v1/events", told, TOKENS["ingest"])[0] == 413
        assert endless.received <= 12  # some is read and thrown away, so that the client gets its answer


def test_a_slow_sender_is_given_up() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)
        yield b"}"

    with site(config=HttpConfig(body_s=0.1)) as here:
        raw = Raw([{"type": "http.request", "body": b"{", "more_body": True}], then_wait=True)
        headers = {b"content-type": b"application/json", b"content-length": b"9"}
        status, got, body = raw.ask(here, "POST", "/v1/events", headers, TOKENS["ingest"])
        assert (
            status == 408
            and json.loads(body)["error"]["code"] == "too-slow"
            and got[b"connection"] == b"close"
        )
        assert here.metric("requests_refused_total", reason="too-slow") == 1


def test_a_sender_who_goes_leaves_nothing_behind() -> None:
    with site() as here:
        raw = Raw([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
        raw.ask(here, "POST", "/v1/events", {b"content-type": b"application/json"}, TOKENS["ingest"])
        assert not here.desk.batches and here.metric("requests_refused_total", reason="disconnected") == 1


def test_an_event_comes_twice_and_is_decided_once() -> None:
    with site() as here:
        first = here.ask("POST", "/v1/events", "", [sent(1), sent(1)]).json()["results"]
        again = here.ask("POST", "/v1/events", "", sent(1)).json()["results"]
        assert [each["repeated"] for each in first + again] == [False, True, True]
        assert len({each["height"] for each in first + again}) == 1


def test_ids_without_a_name_follow_content_and_key() -> None:
    event = sent(1, id=...)
    with site() as here:

        def name(**headers: str) -> str:
            return str(here.ask("POST", "/v1/events", "", event, **headers).json()["results"][0]["id"])

        assert name() == name() and name(idempotency_key="k") == name(idempotency_key="k")
        assert len({name(), name(idempotency_key="k"), name(idempotency_key="l")}) == 3


def test_an_id_of_anothers_event_tells_nothing() -> None:
    with site() as here:
        here.ask("POST", "/v1/events", "", sent(1, subject="secret-process"))
        body = here.ask("POST", "/v1/events", "", sent(1, subject="guessed")).json()
        assert body["results"] == [{"index": 0, "error": body["results"][0]["error"]}]
        assert body["results"][0]["error"]["code"] == "id-taken" and "secret" not in json.dumps(body)
        assert here.metric("events_refused_total", reason="id-taken") == 1


def test_secrets_go_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with site() as here:
        told = [here.ask("POST", "/v1/events", "", [sent(1, command=f"p {SECRET}"), {SECRET: SECRET}]).text]
        told += [
            here.ask("GET", path, "read").text for path in ("/v1/decisions", "/v1/decisions/e1", "/metrics")
        ]
        told += [
            here.ask("GET", f"/v1/{SECRET}").text,
            here.ask("POST", "/v1/kill", "", {"why": [SECRET]}).text,
        ]
        told += [here.ask("GET", f"/v1/decisions?{SECRET}={SECRET}").text]
        logged = "\n".join(record.getMessage() for record in caplog.records if record.name != "httpx")
        assert all(SECRET not in text for text in told) and SECRET not in logged
        assert not any(token in text for token in TOKENS.values() for text in [*told, logged])


# --- no room, no disk, no ledger --------------------------------------------------------------------------------


def test_a_full_queue_answers_429_and_counts() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with site(desk, queue=QueueConfig(events=3, tick_s=0.05)) as here:
        waiting = [
            threading.Thread(target=here.ask, args=("POST", "/v1/events", "", sent(n))) for n in range(3)
        ]
        for thread in waiting:
            thread.start()
        while here.worker.depth < 3:
            time.sleep(0.005)
        answer = here.ask("POST", "/v1/events", "", [sent(8), sent(9)])
        assert (answer.status_code, code(answer)) == (429, "queue-full")
        assert int(answer.headers["retry-after"]) >= 1
        assert here.metric("events_total", outcome="dropped") == 2
        assert here.metric("queue_events") == 3 and here.metric("queue_room") == 3
        assert here.ask("GET", "/healthz", None).status_code == 200
        desk.gate.set()
        for thread in waiting:
            thread.join(30)
        assert sorted(name for batch in desk.batches for name in batch) == ["e0", "e1", "e2"]


def test_a_full_disk_answers_503_and_goes_on() -> None:
    desk = HandDesk()
    desk.errors = [LedgerFullError("/secret/place: the disk is full")]
    with site(desk, queue=QueueConfig(full_s=0.05, tick_s=0.05)) as here:
        answer = here.ask("POST", "/v1/events", "", sent(1))
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["results"][0]["error"]["code"] == "ledger-full" and "/secret" not in answer.text
        if here.worker.full:  # the pause may be over already on a slow machine
            assert here.ask("GET", "/healthz", None).json()["notes"] in (["ledger-full"], [])
        while (answer := here.ask("POST", "/v1/events", "", sent(1))).status_code == 503:
            assert code(answer) == "ledger-full"
        assert answer.json()["decided"] == 1
        assert here.metric("events_total", outcome="failed") == 1


def test_a_broken_ledger_answers_503_and_ends() -> None:
    desk = HandDesk()
    desk.errors = [LedgerBrokenError("the disk is gone")]
    with site(desk) as here:
        assert here.ask("POST", "/v1/events", "", sent(1)).status_code == 503
        assert here.worker.join(20)
        answer = here.ask("POST", "/v1/events", "", sent(2))
        assert (answer.status_code, code(answer)) == (503, "failed")
        health = here.ask("GET", "/healthz", None)
        assert health.status_code == 503 and health.json()["status"] == "failing"
        assert health.json()["notes"] == ["failed"]
        assert here.ask("POST", "/v1/kill", "").status_code == 503


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_decision_explains_itself() -> None:
    with site() as here:
        here.ask("POST", "/v1/events", "", [sent("/a?b", want="alert"), sent(2)])
        found = here.ask("GET", "/v1/decisions/e%2Fa%3Fb").json()
        assert (found["event_id"], found["verdict"], found["votes"]) == ("e/a?b", "alert", ["alert"] * 4)
        assert found["dissent"] == [] and found["tolerates"] == 0 and found["model"] == "m"
        assert here.ask("GET", "/v1/decisions/none").status_code == 404
        assert len(here.ask("GET", "/v1/decisions").json()["decisions"]) == 2
        asked = "/v1/decisions?host=h&subject=p%20q&since_ns=5&verdict=block&limit=7&after=x"
        assert here.ask("GET", asked).status_code == 200
        query = here.backend.index.asked[-1]  # type: ignore[attr-defined]
        assert (query.host, query.subject, query.since_ns, query.least.name, query.limit, query.after) == (
            "h",
            "p q",
            5,
            "BLOCK",
            7,
            "x",
        )


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=2",
        "since_ns=-1",
        "verdict=many",
        "other=1",
        "host=%00",
        "limit=%D9%A3",
    ],
)
def test_what_is_no_query_is_refused(query: str) -> None:
    with site() as here:
        assert here.ask("GET", f"/v1/decisions?{query}").status_code == 400
        assert not here.backend.index.asked  # type: ignore[attr-defined]


def test_nothing_else_is_there() -> None:
    with site() as here:
        for method, path, status, reason in (
            ("GET", "/", 404, "not-found"),
            ("GET", "/docs", 404, "not-found"),
            ("GET", "/v1/events", 405, "not-allowed"),
            ("DELETE", "/v1/decisions/e", 405, "not-allowed"),
        ):
            answer = here.ask(method, path)
            assert (answer.status_code, code(answer)) == (status, reason)
            allowed = answer.headers.get("allow", "")
            assert bool(allowed) == (status == 405) and allowed in answer.json()["error"]["message"]


def test_every_answer_bears_what_keeps_browsers_off() -> None:
    with site() as here:
        for method, path in (
            ("GET", "/healthz"),
            ("GET", "/none"),
            ("POST", "/v1/events"),
            ("GET", "/metrics"),
        ):
            headers = here.ask(method, path, "x" * 40).headers
            assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert "server" not in headers and "text/html" not in headers["content-type"]


def test_a_database_that_hangs_holds_up_nothing_else() -> None:
    released = threading.Event()
    with site(config=HttpConfig(index_s=0.2)) as here:
        here.backend.index.page = lambda query: released.wait(60)  # type: ignore[assignment,method-assign]
        for _ in range(6):  # more than there are threads for it
            answer = here.ask("GET", "/v1/decisions")
            assert (answer.status_code, code(answer)) == (503, "unavailable")
            assert "did not answer" in answer.json()["error"]["message"]
        assert here.ask("GET", "/healthz", None).status_code == 200
        assert here.ask("POST", "/v1/events", "", sent(1)).status_code == 200
    released.set()


def test_an_error_nobody_foresaw_is_ours_too(caplog: pytest.LogCaptureFixture) -> None:
    with site() as here:
        here.backend.index.page = lambda query: 1 / 0  # type: ignore[assignment,method-assign]
        answer = here.ask("GET", "/v1/decisions")
        assert (answer.status_code, code(answer)) == (500, "internal")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert here.metric("requests_refused_total", reason="internal") == 1
        assert "ZeroDivisionError" in caplog.text and "division by zero" not in caplog.text
        assert here.ask("GET", "/healthz", None).status_code == 200
