"""The real server, asked wrongly and rightly: requests made from its schema, events spoilt, tokens that are none, and
what is no HTTP at all.

``phalanx serve`` runs as a process of its own over a new folder, with the tests' small committee in the place of a
run's. Of every answer it is asked whether the schema has it, whether it is an error that was foreseen, and whether it
tells a token, a secret that was sent, or the program's insides. At the end every event that was acknowledged is in the
ledger as it was told, the ledger verifies, and the server has counted each refusal that was seen here.
"""

import hashlib
import http.client
import json
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from service.ledgers import verified
from service.test_serve_live import Server, decided, serving

from benchmarks.fuzz.raw_requests import RAW, Asker
from phalanx.service.admission import Reason
from phalanx.service.metrics import HTTP_REFUSALS
from phalanx.service.openapi import PATHS

__all__ = ["Seen", "attack", "compare"]

CANARY = "canary-hunter2-canary"
_JSON, _LINES = "application/json", "application/x-ndjson"
_FORESEEN = frozenset((200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 503))
_ROUND = {"schema": 40, "tokens": 250, "events": 500, "streams": 30, "raw": 200}
_INSIDES = (b"Traceback", b'File "', b".py", b"phalanx.service", b"site-packages")
_GROWTH_MB = 256
_PROBLEMS = 40
_PATIENCE_S = 300.0  # a server that takes longer hangs


@dataclass
class Seen:
    """What was asked and answered.

    Attributes:
        requests: by kind.
        statuses: of answers, by kind.
        codes: of requests that were refused as a whole.
        refused: events, by reason.
        outcomes: events that were decided, or decided before.
        told: height and verdict of every event that was acknowledged, by id.
        unseen: requests whose answer nobody waited for.
        problems: what should not be, in words.
    """

    secrets: Sequence[bytes]
    requests: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    codes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    told: dict[str, tuple[int, str]] = field(default_factory=dict)
    unseen: int = 0
    problems: list[str] = field(default_factory=list)

    def wrong(self, what: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(what[:600])

    def answer(self, kind: str, status: int, body: bytes, *, wanted: Sequence[int] = ()) -> None:
        """Looks at an answer, whoever asked."""
        self.requests[kind] += 1
        self.statuses[kind][status] += 1
        if status not in (wanted or _FORESEEN):
            self.wrong(f"{kind}: status {status}, {body[:200]!r}")
        for told in (*self.secrets, *(_INSIDES if status != 200 else ())):
            if told in body:
                self.wrong(f"{kind}: {status} tells {told[:12]!r}: {body[:200]!r}")
        try:
            if status == 200 and body[:1] == b"{":
                for line in body.splitlines():
                    self._results(json.loads(line))
            elif status != 200:
                form = json.loads(body)
                if "results" in form:
                    self._results(form)
                else:
                    self.codes[form["error"]["code"]] += 1
        except (ValueError, KeyError, TypeError) as problem:
            self.wrong(f"{kind}: an answer of another form ({problem}): {body[:200]!r}")

    def _results(self, form: Any) -> None:
        for result in form.get("results", [form]) if isinstance(form, dict) else ():
            error = result.get("error")
            if error:
                self.refused[error["code"]] += 1
            elif "height" in result and "repeated" in result:
                self.outcomes["repeated" if result["repeated"] else "decided"] += 1
                told = result["height"], result["verdict"]
                if self.told.setdefault(result["id"], told) != told:
                    self.wrong(f"an event was told two decisions: {result}")


@dataclass
class Attack:
    """Requests to a server, of every kind.

    Args:
        server: that is asked.
        seed: of what is drawn.
    """

    server: Server
    seed: int

    def __post_init__(self) -> None:
        tokens = [token.encode() for token in self.server.tokens.values()]
        hashes = [hashlib.sha256(token).hexdigest().encode() for token in tokens]
        self.seen = Seen([*tokens, *hashes, CANARY.encode(), str(self.server.folder).encode()])
        self.draw, self.sent = random.Random(self.seed), 0
        self.port = int(self.server.url.rpartition(":")[2])
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        """An answer, over the connection that stays open."""
        for last in (False, True):
            try:
                self.connection.request(method, path, body, headers, encode_chunked=hasattr(body, "__next__"))
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, ConnectionError):
                self.connection.close()  # the server closes it where it has not read all of a body
                self.seen.unseen += 1
                if last:
                    raise
        raise AssertionError

    def schema(self, count: int, round_: int) -> None:
        """Requests made from the schema, half of them not as it wants them; answers as it says."""
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis import strategies as st
        from requests import Session
        from schemathesis.generation import GenerationMode

        from phalanx.service.openapi import schema

        loaded, session = schemathesis.openapi.from_dict(schema("phalanx", "1")), Session()
        limits = settings(
            max_examples=count,
            phases=(Phase.generate,),
            database=None,
            deadline=None,
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType],
        )
        for path in PATHS:
            operation = loaded[path.path.replace(":path", "")][path.method]
            modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
            cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
            limits(seed(self.seed * 100_000 + round_)(given(case=cases)(self._asker(path, session))))()

    def _asker(self, path: Any, session: Any) -> Callable[[Any], None]:
        return lambda case: self._case(path, session, case)

    def _case(self, path: Any, session: Any, case: Any) -> None:
        """One request from the schema."""
        from requests import RequestException, Timeout
        from service.test_openapi import checks

        if case.headers:
            case.headers.pop("Authorization", None)
        token = {"Authorization": f"Bearer {self.server.tokens[path.scope]}"} if path.scope else {}
        try:
            answer = case.call(base_url=self.server.url, headers=token, session=session, timeout=_PATIENCE_S)
        except Timeout:
            raise
        except (RequestException, UnicodeError):
            self.seen.unseen += 1  # what the client itself will not send, or a connection that was closed
            return
        self.seen.answer(f"schema {path.name}", answer.status_code, answer.content)
        try:
            case.validate_response(answer, checks=checks())
        except (Exception, BaseExceptionGroup) as problem:
            self.seen.wrong(f"schema {path.name}: {problem} {getattr(problem, 'exceptions', '')}")

    def tokens(self, count: int) -> None:
        """Requests of those who may not: every endpoint, with a token that is none or of another scope."""
        scopes = [path for path in PATHS if path.scope]
        for _ in range(count):
            path, headers = self.draw.choice(scopes), {"content-type": _JSON}
            others = [scope for scope in self.server.tokens if scope != path.scope]
            good = self.server.tokens[path.scope]
            given, wanted = self.draw.choice(
                [
                    (None, (401,)),
                    ("Bearer", (401,)),
                    (f"Basic {good}", (401,)),
                    (f"Bearer {good[:-1]}", (401,)),
                    (f"Bearer {good}x", (401,)),
                    (f"Bearer {good.swapcase()}", (401,)),
                    (f"Bearer {self.draw.randbytes(30).hex()}", (401,)),
                    (f"Bearer {'x' * self.draw.randrange(4000)}", (401,)),
                    (f"Bearer {good} {good}", (401,)),
                    (
                        f"Bearer {self.draw.choice(others) and self.server.tokens[self.draw.choice(others)]}",
                        (403,),
                    ),
                ]
            )
            if given is not None:
                headers["authorization"] = given
            where = path.path.replace("{event_id:path}", "e").replace("{restriction}", "r")
            where = re.sub(r"\{[^}]*\}", "x", where)
            status, body = self.ask(
                path.method, where, self._events(1) if path.method == "POST" else None, headers
            )
            self.seen.answer("tokens", status, body, wanted=wanted)

    def events(self, count: int) -> None:
        """Events, many of them spoilt; those that are taken are remembered."""
        for _ in range(count):
            lines = self.draw.random() < 0.4
            body = self._events(self.draw.choice((1, 1, 2, 5, 20)), lines=lines)
            headers = self._may("ingest", _LINES if lines else _JSON)
            if self.draw.random() < 0.2:
                headers["idempotency-key"] = self.draw.choice(("a", "b", "x" * 200, str(self.sent)))
            status, told = self.ask("POST", "/v1/events", body, headers)
            self.seen.answer("events", status, told)

    def streams(self, count: int) -> None:
        """Streams of lines, in pieces that end anywhere."""
        for _ in range(count):
            body = self._events(self.draw.randrange(1, 30), lines=True)
            cuts = sorted(self.draw.randrange(len(body) + 1) for _ in range(4))
            pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
            headers = {**self._may("ingest", _LINES), "transfer-encoding": "chunked"}
            status, told = self.ask("POST", "/v1/stream", iter(pieces), headers)
            self.seen.answer("streams", status, told)

    def raw(self, count: int) -> None:
        """What is no request, or one that ends early; where there is an answer it is a refusal."""
        asker = Asker(
            self.draw, self.server.tokens["ingest"], lambda count, lines: self._events(count, lines=lines)
        )
        for _ in range(count):
            data, waits, wanted = self.draw.choices(RAW, weights=[weight for _, weight in RAW])[0][0](asker)
            with socket.create_connection(("127.0.0.1", self.port), _PATIENCE_S) as connection:
                connection.settimeout(_PATIENCE_S)
                try:
                    connection.sendall(data)
                    if waits:
                        connection.shutdown(socket.SHUT_WR)
                        answer = http.client.HTTPResponse(connection)
                        answer.begin()
                        self.seen.answer("raw", answer.status, answer.read(), wanted=wanted)
                        continue
                except (http.client.HTTPException, ConnectionError):
                    pass  # closed while it was still being sent to, or without a word
                self.seen.requests["raw"] += 1
                self.seen.unseen += 1

    def _may(self, scope: str, kind: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.server.tokens[scope]}", "content-type": kind}

    def _events(self, count: int, *, lines: bool = False) -> bytes:
        """Bodies of events: right ones, wrong ones, and bytes that were changed."""
        draw, found = self.draw, []
        for _ in range(count):
            self.sent += 1
            event: dict[str, Any] = {
                "id": f"z-{draw.randrange(max(1, self.sent - 50), self.sent + 200)}",
                "time_ns": 10**18 + self.sent,
                "host": f"web-{draw.randrange(4)}",
                "subject": f"web-1:{draw.randrange(90)}",
                "kind": draw.choice(("READ", "EVENT_EXECUTE", "CONNECT")),
                "command": f"login --password={CANARY} -u {draw.randrange(9)}",
            }
            if draw.random() < 0.3:
                name = draw.choice((*event, "label", "x", "nested", "\u202e", "n" * 70))
                event[name] = draw.choice(_VALUES)
            if draw.random() < 0.3:
                del event["id"]
            found.append(json.dumps(event).encode())
        body = b"\n".join(found) if lines else found[0] if count == 1 else b"[" + b",".join(found) + b"]"
        if draw.random() < 0.3:
            spoilt = bytearray(body)
            for _ in range(draw.randrange(1, 6)):
                at = draw.randrange(len(spoilt))
                spoilt[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
            # what shows a part of the secret shows none
            body = bytes(spoilt)
        return body


_VALUES = (
    *(None, True, -1, 0, 2**63, 2**70, 1e308, -0.0, "", " ", "\x00", "\u202e", "a" * 5000, "a" * 300),
    *([], {}, [1], {"a": {"b": []}}, 10**18, 4 * 10**18, "EVENT_", "\U0001f600", "nan", "1e999"),
)


def _memory_mb(process: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _measured(text: str, name: str) -> Iterator[tuple[str, float]]:
    """A counter of the service's, by label."""
    for label, value in re.findall(rf'^phalanx_{name}_total{{\w+="([^"]+)"}} (\S+)$', text, re.MULTILINE):
        yield label, float(value)


def compare(seen: Seen, metrics: str) -> None:
    """Each refusal and each event that was seen here was counted there; more only of those that nobody waited for."""
    codes = Counter({code: 0 for code in HTTP_REFUSALS})
    for code, count in seen.codes.items():
        codes[code if code in HTTP_REFUSALS else "bad-request"] += count
    reasons = Counter(seen.refused)
    for code, count in seen.codes.items():
        if code in set(Reason) and code not in HTTP_REFUSALS:
            reasons[code] += count
    for what, name, ours in (
        ("requests", "requests_refused", codes),
        ("events", "events_refused", reasons),
        ("outcomes", "events", seen.outcomes),
    ):
        for label, theirs in _measured(metrics, name):
            if what == "outcomes" and label not in ("decided", "repeated"):
                continue
            if not ours[label] <= theirs <= ours[label] + 30 * seen.unseen:
                seen.wrong(f"{what} {label}: {theirs:.0f} counted, {ours[label]} seen")


def attack(requests: int, *, seed: int = 1, share: float = 1.0) -> dict[str, Any]:
    """So many requests at least; what was asked, answered and found wrong.

    Args:
        requests: at least.
        seed: of what is drawn.
        share: of a round's requests, for a sample.
    """
    memory = Path("/dev/shm")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        folder = Path(place) / "live"
        with serving(folder) as server:
            made = Attack(server, seed)
            seen, round_, first_mb = made.seen, 0, 0.0
            while seen.requests.total() < requests:
                for kind, count in _ROUND.items():
                    part = max(1, round(share * count))
                    getattr(made, kind)(*((part, round_) if kind == "schema" else (part,)))
                if server.process.poll() is not None:
                    seen.wrong(f"the server ended: {''.join(server.errors)[-2000:]}")
                    break
                round_ += 1
                last_mb = _memory_mb(server.process.pid)
                if not first_mb and seen.requests.total() >= requests / 10:
                    first_mb = last_mb
                print(
                    round_, seen.requests.total(), f"{last_mb:.0f} MiB", len(seen.problems), file=sys.stderr
                )
            else:
                if last_mb - first_mb > _GROWTH_MB:
                    seen.wrong(f"memory grew from {first_mb:.0f} to {last_mb:.0f} MiB")
                time.sleep(1.0)
                with server.client("read") as reader:
                    compare(seen, reader.get("/metrics").text)
                server.process.send_signal(signal.SIGTERM)
                code = server.process.wait(300)
                if code:
                    seen.wrong(f"the server ended with {code}")
        log = "".join(server.errors)
        for told in (*(secret.decode() for secret in seen.secrets[:-1]), "Traceback", "a request failed"):
            if told in log:
                seen.wrong(f"the log has {told[:12]!r}: {log[max(0, log.index(told) - 300) :][:600]!r}")
        try:
            found = decided(folder)
        except AssertionError:
            found = {}
            seen.wrong("an event is in the ledger twice")
        lost = [name for name, told in seen.told.items() if found.get(name) != told]
        if lost:
            seen.wrong(f"{len(lost)} events are not in the ledger as they were told: {lost[:3]}")
        check = verified(folder / "ledger")
        if check.findings:
            seen.wrong(f"the ledger does not verify: {check.findings[:2]}")
    return {
        "requests": seen.requests.total(),
        "unanswered": seen.unseen,
        "statuses": {
            kind: {str(s): n for s, n in sorted(found.items())} for kind, found in seen.statuses.items()
        },
        "events_acknowledged": len(seen.told),
        "events_refused": seen.refused.total(),
        "ledger_entries": check.entries,
        "memory_mb": [round(first_mb), round(last_mb)],
        "took_s": round(time.monotonic() - begun, 1),
        "problems": seen.problems,
    }
