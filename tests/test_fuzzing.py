"""A sample of what benchmarks/fuzzing.py does: its targets with spoilt inputs, its requests to the real server."""

import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what schemathesis does is not ours
def test_the_real_server_answers_whatever_is_asked() -> None:
    pytest.importorskip("schemathesis")
    from benchmarks.fuzz.http_requests import attack

    found = attack(1000, seed=3, share=0.5)
    assert not found["problems"]
    assert found["requests"] >= 1000 and found["events_acknowledged"] > 100
