"""Laws of robustness and of the streaming monitor; ``benchmarks/stl_laws.py`` draws many more cases of each."""

from typing import Any

import numpy as np
import pytest
from stl.laws import LAWS, broken, drawn

from phalanx.stl import offline, stages

CASES = 50


@pytest.mark.parametrize("cases", [CASES, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAWS)
def test_law(name: str, cases: int) -> None:
    finite = 0
    for seed in range(cases):
        case = drawn(name, seed)
        assert not (told := broken(name, seed, case)), told
        finite += bool(np.isfinite(case.left).any())
    assert finite > cases / 2


def _window_a_sample_short(original: Any) -> Any:
    return lambda values, begin, end, operator: original(values, begin, end and max(begin, end - 1), operator)


def _left_side_asked_at_the_end_too(original: Any) -> Any:
    return lambda left, right: original(left, np.minimum(left, right))


def _later_by_one_more(original: Any) -> Any:
    return lambda values, by, pad: original(values, by + (by > 2), pad)


def _shorter_wedge(original: Any) -> Any:
    return lambda least, length: original(least, length and max(1, length - 1))


FAULTS = {
    "a window a sample short": (offline, "_window", _window_a_sample_short, "windows of windows"),
    "until on [t, t']": (offline, "until", _left_side_asked_at_the_end_too, "until written out"),
    "a late shift": (offline, "_shifted", _later_by_one_more, "windows further ahead"),
    "a stream's window a sample short": (
        stages,
        "Extreme",
        _shorter_wedge,
        "a stream's verdicts are the whole trace's",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_laws_notice_a_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, part, spoil, name = FAULTS[fault]
    monkeypatch.setattr(module, part, spoil(getattr(module, part)))
    assert any(broken(name, seed, drawn(name, seed)) for seed in range(CASES))
