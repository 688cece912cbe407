"""What the service reads: lines of a ledger, bodies of requests, their headers and parameters."""

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.test_admission import VALID, check
from service.test_admission import admission as without_rules
from starlette.datastructures import QueryParams

from benchmarks.fuzz.consensus_targets import committee
from benchmarks.fuzz.target import REFUSED, TAKEN, Case
from phalanx.errors import PhalanxError
from phalanx.service import http_asks, http_guard
from phalanx.service.admission import Admission, Refused
from phalanx.service.canonical import canonical
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.ledger_bodies import batch_flaw, decisions_of, event_to_json
from phalanx.service.ledger_entry import KINDS, Entry, Head, entry_flaw, entry_line, seal
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.redaction import redact, redact_event
from phalanx.service.statements import Statement, equivocation
from phalanx.service.stream import Lines
from phalanx.service.tokens import Tokens

__all__ = ["admission", "asked", "ledger"]

NOW = 1_800_000_000_000_000_000


def ledger(folder: Path) -> Case:
    """Lines of a ledger: read, checked, and checked as a body that its writer signed."""

    made = committee(folder)
    made.step()
    node, members = made.nodes[0], made.chain.keys
    (segment,) = node.ledger_folder.glob("ledger-*.ndjson")
    first, second = segment.read_bytes().splitlines(keepends=True)
    file = folder / "fuzzed.ndjson"

    def signed(form: Any) -> bytes:
        """The line of a body that the ledger's member signed; what is no body, as it is."""
        start = Entry.parse(first)
        kind = KINDS[len(form) % len(KINDS)] if isinstance(form, dict) and "events" not in form else "batch"
        return seal(2, start.hash, kind, form, signers={node.name: node.key}, signatures={})[1]

    def try_one(data: bytes) -> str:
        line, outcome = data.split(b"\n")[0] + b"\n", REFUSED
        try:
            entry = Entry.parse(line)
            outcome = TAKEN
        except PhalanxError:
            entry = None
        if entry is not None and entry_flaw(entry, line) is None:
            assert entry_line(entry) == line
        try:
            form = json.loads(data)
        except (ValueError, RecursionError):
            form = None
        if isinstance(form, dict):
            body = form["body"] if isinstance(form.get("body"), dict) else form
            flaw = batch_flaw(body)
            if flaw is None:
                assert decisions_of(body)
            for read in (Head.from_json, Statement.from_json):
                with suppress(PhalanxError):
                    read(form)
            try:
                line = signed(body)
                entry = Entry.parse(line)
            except PhalanxError:
                entry = None
            if entry is not None:
                assert entry_flaw(entry, line) is None
                votes_flaw(entry, members)
        if entry is not None or zlib.crc32(data) % 8 == 0:  # most of what does not read is read once only
            file.write_bytes(first + line)
            assert verify_ledger(file, members, needed=1).entries >= 1
        return outcome

    said = [Statement.signed(node.key, node.name, 1, "vote", {"v": i}) for i in range(2)]
    bodies: list[Any] = [
        equivocation(said[0], said[1], members),
        {"member": node.name, "public": node.key.public, "from": 1},
        {"mode": "shadow"},
    ]
    texts = [json.dumps(body).encode() for body in bodies]
    texts += [json.dumps(json.loads(second)["body"]).encode(), json.dumps(Head().to_json()).encode()]
    return Case([first, second, *texts], try_one, made.close)


def admission(folder: Path) -> Case:
    """Bodies of requests, and lines of streams: what is admitted is within every limit."""

    plain, taken = without_rules(), Admission(redact_event, lambda: NOW)

    def try_one(data: bytes) -> str:
        outcome = REFUSED
        stream, half = Lines(300), len(data) // 2
        streamed = stream.feed(data[:half]) + stream.feed(data[half:]) + stream.end()
        assert [number for number, _ in streamed] == list(range(1, len(streamed) + 1))
        items = taken.split(data, lines=data[:1] == b"\n")
        if isinstance(items, Refused):
            return REFUSED
        for _, item in items[:4]:
            check(item, plain)
            event = taken.admit(item)
            if not isinstance(event, Refused):
                outcome = TAKEN
                redacted = redact_event(event)
                assert canonical(event_to_json(redacted)) == canonical(event_to_json(event)), (
                    "a secret was left"
                )
        text = data[:512].decode(errors="replace")
        once = redact(text)
        assert redact(once) == once, "redacting twice is not redacting once"
        return outcome

    text = json.dumps({**VALID, "command": "login --password=hunter2 -u x", "label": 1}).encode()
    return Case([text, b"[" + text + b"," + text + b"]", b"\n" + text + b"\n" + text], try_one)


def asked(folder: Path) -> Case:
    """Small bodies, headers, parameters, and the file of tokens."""

    tokens = Tokens.parse("read sha256:" + "0" * 64 + " ann")
    expected = (PhalanxError, http_guard.ApiError)

    def try_one(data: bytes) -> str:
        text = data.decode("latin-1")
        headers = [
            (name, data)
            for name in (b"authorization", b"content-type", b"idempotency-key", b"content-encoding")
        ]
        reads: tuple[Callable[[], Any], ...] = (
            lambda: http_asks.asked(data, http_asks.Why),
            lambda: http_asks.asked(data, http_asks.NewMode),
            lambda: http_asks.asked(data, list[http_asks.Label]),
            lambda: http_asks.query_of(QueryParams(text)),
            lambda: http_asks.idempotency_key(headers),
            lambda: http_guard.content_type(headers, ("application/json",)),
            lambda: http_guard.authorised(headers, tokens, "read"),
            lambda: Tokens.parse(text),
        )
        outcome = REFUSED
        for read in reads:
            try:
                read()
                outcome = TAKEN
            except expected:
                pass
        return outcome

    seeds = [
        b'{"mode": "enforce", "why": "because"}',
        b'[{"id": "e", "malicious": true}]',
        b"host=a&since_ns=5&verdict=block&limit=10&after=x",
        b"Bearer 0123456789abcdef0123456789abcdef",
        b'application/json; charset="utf-8"',
        b"read,approve sha256:"
        + b"0" * 64
        + b" ann\n# a comment\ningest 0123456789abcdef0123456789abcdef bob",
    ]
    return Case(seeds, try_one)
