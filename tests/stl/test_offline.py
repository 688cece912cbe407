"""Robustness of whole traces against RTAMT, the definition, and laws."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.by_definition import by_definition
from stl.formulas import STRATA, formula, trace
from stl.rtamt_oracle import rtamt_robustness

from phalanx.errors import DataError, UsageError
from phalanx.stl import parse, robustness

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


@pytest.mark.parametrize("kind", STRATA)
def test_equal_to_rtamt(kind: str) -> None:
    pytest.importorskip(
        "rtamt", reason="rtamt 0.4.10 is not installed (no release of it runs on this Python)"
    )
    compared = 0
    for seed in range(40):
        rng = random.Random(f"{kind} {seed}")
        text, signals = formula(rng, rng.randint(0, 4), STRATA[kind]), trace(rng)
        expected = rtamt_robustness(text, signals)
        if expected is not None:
            np.testing.assert_array_equal(robustness(text, signals), expected, err_msg=f"{seed}: {text}")
            compared += 1
    assert compared >= 30


@given(SEEDS)
def test_as_the_definition_says(rng: random.Random) -> None:
    signals = trace(rng, longest=9)
    text = formula(rng, 2)
    assert robustness(text, signals).tolist() == by_definition(parse(text), signals)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 10, 50, 1000, 1025])
def test_until_in_blocks_is_its_recurrence(length: int) -> None:
    rng = np.random.default_rng(length)
    left, right = rng.integers(-9, 9, (2, length)).astype(float)
    expected, after = np.empty(length), -np.inf
    for t in reversed(range(length)):
        expected[t] = after = max(right[t], min(left[t], after))
    np.testing.assert_array_equal(robustness("x until y", {"x": left, "y": right}), expected)


@pytest.mark.parametrize("op", ["iff", "xor", "==", "!=", ">", "<"])
def test_equal_infinities_are_no_distance_apart(op: str) -> None:
    assert robustness(f"(G[5,6] x) {op} (G[5,6] y)", {"x": [1, 2], "y": [3, 4]}).tolist() == [0, 0]


def test_what_the_formula_does_not_need_is_not_read() -> None:
    unread: dict[str, Any] = {
        "x": [1, 2],
        "frame": np.zeros((2, 3)),
        "name": ["a", "b"],
        "gap": [np.nan, 0.0],
    }
    assert robustness("unused = gap > 0; x", unread).tolist() == [1, 2]


def test_a_period_that_floating_point_is_a_little_off() -> None:
    x = {"x": [1.0, 3.0, 2.0]}
    assert robustness("F[0,300ms] x", x, period=3 * 0.1).tolist() == [3, 3, 2]


def test_the_input_is_left_alone() -> None:
    x = np.array([3.0, 1.0, 2.0])
    found = robustness("x", {"x": x})
    found[:] = 0
    robustness("always[0,5] x", {"x": x})
    assert x.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("text", "signals", "error", "told"),
    [
        ("q > 0", {"x": [1.0]}, UsageError, "unknown signal 'q'; the trace has: x"),
        ("a/b > 0", {"a": [1.0], "b": [1.0]}, UsageError, "slash"),
        ("x > 0", {"x": [1.0, np.nan]}, DataError, "NaN at sample 1"),
        ("x > 0", {"x": []}, DataError, "no samples"),
        ("x > y", {"x": [1.0], "y": [1.0, 2.0]}, DataError, "x 1, y 2"),
        ("x > 0", {"x": np.ma.array([1.0, 2.0], mask=[False, True])}, DataError, "NaN at sample 1"),
        ("x > 0", {"x": ["a", "b"]}, DataError, "'x' is no sequence of numbers"),
        ("x > 0", {"x": [1j]}, DataError, "complex"),
        ("x > 0", {"x": [10**400]}, DataError, "'x' is no sequence of numbers"),
        ("x > 0", {"x": [1.0, None]}, DataError, "'x' is no sequence of numbers"),
        ("x > 0", {"x": [[1.0], [1.0, 2.0]]}, DataError, "'x' is no sequence of numbers"),
        ("x = y > 0; x", {"x": [1.0], "y": [1.0]}, UsageError, "defined in the formula and a signal"),
        ("a = y > 0;\nG (a -> y / x > 0)", {"x": [0.0], "y": [1.0]}, DataError, "line 2, column 11: 'y / x'"),
        ("x unless[0,1.5] y", {"x": [1.0], "y": [1.0]}, UsageError, "column 3: the bound 1.5 s of unless"),
        ("x > 0", {"x": [[1.0]]}, DataError, "1x1"),
        ("x / y > 0", {"x": [1.0, 1.0], "y": [1.0, 0.0]}, DataError, "'x / y' has no value at sample 1"),
        ("sqrt(x) > 0", {"x": [-1.0]}, DataError, "sqrt of -1"),
        ("exp(x) > 0", {"x": [1e9]}, DataError, "exp of 1e"),
        ("G[0,500ms] x > 0", {"x": [1.0]}, UsageError, "column 1: the bound 0.5 s of G"),
    ],
)
def test_what_is_wrong_is_said(text: str, signals: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match="(?s).*") as caught:
        robustness(text, signals)
    assert told in str(caught.value)


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan"), float("inf"), 1e-10, 1 / 30, 1e300])
def test_a_period_is_positive_and_whole(period: float) -> None:
    with pytest.raises(UsageError, match="period"):
        robustness("x", {"x": [1.0]}, period=period)
