"""A stream over HTTP: answered while it comes, however it is cut, however it ends."""

import json
import threading
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from service.apps import TOKENS, Raw, Site, lines, sent, site
from service.desks import HandDesk

from phalanx.service.admission import Limits
from phalanx.service.endpoints import HttpConfig
from phalanx.service.ledger import LedgerBrokenError
from phalanx.service.worker import QueueConfig


def stream(here: Site, parts: list[bytes], **given: Any) -> tuple[list[Any], Raw]:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if not given.get("then_wait"):
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    raw = Raw(messages, **given)
    headers = {b"content-type": b"application/x-ndjson"}
    status, got, body = raw.ask(here, "POST", "/v1/stream", headers, TOKENS["ingest"])
    assert status == 200 and got[b"content-type"] == b"application/x-ndjson"
    return [json.loads(line) for line in body.splitlines()], raw


def test_a_stream_is_answered_while_it_comes() -> None:
    with site() as here:
        found, raw = stream(here, [lines([sent(n)]) for n in range(5)])
        assert [each["id"] for each in found] == [f"e{n}" for n in range(5)]
        # the answer to the first line came before the second line was read
        assert [received for received, _ in raw.parts] == [1, 2, 3, 4, 5]


@given(cuts=st.lists(st.integers(1, 900), max_size=12))
def test_how_a_stream_is_cut_makes_no_difference(cuts: list[int]) -> None:
    body = (
        lines([sent(0), sent(1, kind=""), 7])
        + b"\n  \r\n"
        + lines([sent(2), sent(3)])
        + json.dumps(sent(4)).encode()
    )
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    with site() as here:
        found, _ = stream(here, [body[a:b] for a, b in zip([0, *ends], ends, strict=False)])
    names = [each.get("id") or each["error"]["code"] for each in found]
    assert names == ["e0", "empty-field", "not-an-object", "e2", "e3", "e4"]
    assert [each["index"] for each in found] == list(range(6))
    assert found[1]["error"]["message"].startswith("line 2: ")


def test_a_line_without_an_end_takes_no_memory() -> None:
    with site(limits=Limits(event_bytes=1000)) as here:
        parts = [lines([sent(0)]), *[b"x" * 500] * 50, b"\n" + lines([sent(1)]), b"y" * 2000]
        found, _ = stream(here, parts)
        names = [each.get("id") or each["error"]["code"] for each in found]
        assert names == ["e0", "too-large", "e1", "too-large"]
        assert here.metric("events_refused_total", reason="too-large") == 2


def test_a_stream_waits_for_room() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with site(desk, queue=QueueConfig(events=2, tick_s=0.05)) as here:
        first = here.worker.submit([])
        assert first.result(5) == [] if first.done() else True
        other = threading.Thread(target=here.ask, args=("POST", "/v1/events", "", [sent("a"), sent("b")]))
        other.start()
        while here.worker.depth < 2:
            time.sleep(0.005)
        threading.Timer(0.2, desk.gate.set).start()
        found, _ = stream(here, [lines([sent(n)]) for n in range(4)])
        other.join(30)
        assert [each["id"] for each in found] == ["e0", "e1", "e2", "e3"]


def test_a_stream_that_says_nothing_is_ended() -> None:
    with site(config=HttpConfig(idle_s=0.1)) as here:
        found, _ = stream(here, [lines([sent(0)])], then_wait=True)
        assert found[0]["id"] == "e0" and found[1]["error"]["code"] == "too-slow"


def test_a_stream_ends_when_the_service_does() -> None:
    with site() as here:
        here.backend.stopping.set()
        found, _ = stream(here, [], then_wait=True)
        assert found == [{"error": found[0]["error"]}] and found[0]["error"]["code"] == "stopping"


def test_a_stream_ends_where_nothing_can_be_decided() -> None:
    desk = HandDesk()
    desk.errors = [LedgerBrokenError("gone")]
    with site(desk) as here:
        found, _ = stream(here, [lines([sent(n)]) for n in range(3)])
        assert found[0]["error"]["code"] == "failed" and found[1]["error"]["code"] in ("failed", "stopping")
        # the second may have been taken before it was known that nothing can be decided; then the third was not
        assert len(found) in (2, 3) and found[-1]["error"]["code"] in ("failed", "stopping")
