"""A sample of what benchmarks/fuzzing.py does: its targets with spoilt inputs, its requests to the real server."""

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.fuzz.http_requests import Seen, attack, compare
from benchmarks.fuzz.targets import TARGETS


@pytest.fixture
def quiet() -> Iterator[None]:
    """What is refused is logged, which is not looked at here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def spoilt(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut out and doubled."""
    out = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        at, size = draw.randrange(len(out) + 1), draw.randrange(9)
        what = draw.randrange(3)
        if what == 0:
            out[at : at + 1] = draw.randbytes(1)
        elif what == 1:
            del out[at : at + size]
        else:
            out[at:at] = out[at : at + size]
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("quiet")
def test_spoilt_inputs_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    case, draw = TARGETS[name].open(tmp_path), random.Random(7)
    found = Counter(case.try_one(seed) for seed in case.seeds)
    for seed in case.seeds:
        for _ in range(200 // len(case.seeds)):
            found[case.try_one(spoilt(seed, draw))] += 1
    case.close()
    assert found["taken"] and found["refused"], found
    assert TARGETS[name].longest >= max(map(len, case.seeds))


def test_the_targets_are_ten_million_inputs() -> None:
    assert sum(target.inputs for target in TARGETS.values()) == 10_000_000


def result(height: int, **changes: object) -> bytes:
    told = {"index": 0, "id": "e", "height": height, "repeated": False, "verdict": "allow", **changes}
    return json.dumps({"results": [told]}).encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error": {"code": "internal"}}'),
        (200, b'{"token": "a-secret"}'),
        (400, b'{"error": {"code": "bad-request", "message": "a-secret"}}'),
        (400, b"Traceback (most recent call last)"),
        (400, b'{"error": {"code": "bad-request", "message": "in phalanx.service.app"}}'),
        (400, b"[]"),
        (200, result(6)),
        (200, result(5, verdict="block", repeated=True)),
    ],
)
def test_what_is_wrong_with_an_answer_is_found(status: int, body: bytes) -> None:
    seen = Seen([b"a-secret"])
    seen.answer("events", 200, result(5))
    seen.answer("events", 401, b'{"error": {"code": "unauthorized"}}', wanted=(401,))
    assert not seen.problems
    seen.answer("events", status, body)
    assert len(seen.problems) >= 1


def test_an_answer_that_is_foreseen_but_not_here_is_found() -> None:
    seen = Seen([])
    seen.answer("tokens", 200, b"{}", wanted=(401,))
    assert len(seen.problems) == 1


@pytest.mark.parametrize(("counted", "fine"), [(2, True), (1, False), (3, False)])
@pytest.mark.parametrize("name", ["requests_refused", "events_refused", "events"])
def test_counts_that_do_not_add_up_are_found(name: str, counted: int, fine: bool) -> None:
    label = {"requests_refused": "unauthorized", "events_refused": "missing-field", "events": "decided"}[name]
    kind = {"requests_refused": "reason", "events_refused": "reason", "events": "outcome"}[name]
    seen = Seen([])
    for height in range(2):
        seen.answer("tokens", 401, b'{"error": {"code": "unauthorized"}}')
        seen.answer("events", 200, result(height, id=f"e{height}"))
        seen.answer("events", 200, b'{"results": [{"index": 0, "error": {"code": "missing-field"}}]}')
    compare(seen, f'phalanx_{name}_total{{{kind}="{label}"}} {counted}.0\n')
    assert (not seen.problems) == fine


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what schemathesis does is not ours
def test_the_real_server_answers_whatever_is_asked() -> None:
    pytest.importorskip("schemathesis")
    found = attack(1000, seed=3, share=0.5)
    assert not found["problems"]
    assert found["requests"] >= 1000 and found["events_acknowledged"] > 100
