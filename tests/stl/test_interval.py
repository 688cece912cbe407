"""Bounds of robustness over a tube: sound for every trace in it, tight where they should be."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stl.formulas import STRATA, derived, formula, trace

from phalanx.errors import DataError, UsageError
from phalanx.stl import robustness
from phalanx.stl.interval import robustness_bounds
from phalanx.stl.operators import POINTWISE, TEMPORAL

INF = float("inf")
SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


def _tube(
    rng: random.Random, known: float = 0.3
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A lower and an upper trace and one between, which now and then lies on an end; some samples have no width."""
    lower, upper, inner = trace(rng, longest=12), {}, {}
    for name, low in lower.items():
        width = np.array([0.0 if rng.random() < known else rng.uniform(0, 2) for _ in low])
        share = np.array([rng.choice((0.0, 1.0, rng.random())) for _ in low])
        upper[name] = low + width
        inner[name] = np.clip(low + share * width, low, upper[name])
    return lower, upper, inner


@given(SEEDS, st.sampled_from(list(STRATA)))
@settings(max_examples=60)
def test_every_trace_in_the_tube_lies_within_the_bounds(rng: random.Random, kind: str) -> None:
    lower, upper, inner = _tube(rng)
    text = formula(rng, rng.randint(0, 3), STRATA[kind])
    low, high = robustness_bounds(text, lower, upper)
    value = robustness(text, inner)
    assert (low <= value).all(), text
    assert (value <= high).all(), text


@given(SEEDS)
def test_numbers_of_the_past_lie_within_the_bounds(rng: random.Random) -> None:
    lower, upper, inner = _tube(rng)
    text = formula(rng, 1, leaf=derived)
    try:
        low, high = robustness_bounds(text, lower, upper)
    except DataError as error:
        assert "divide by 0" in str(error)  # of a rate
        assume(False)
    value = robustness(text, inner)
    assert (low <= value).all(), text
    assert (value <= high).all(), text


@given(SEEDS)
def test_a_tube_without_width_has_the_robustness_of_its_trace(rng: random.Random) -> None:
    signals, text = trace(rng), formula(rng, 3)
    low, high = robustness_bounds(text, signals, signals)
    expected = robustness(text, signals)
    np.testing.assert_array_equal(low, expected)
    np.testing.assert_array_equal(high, expected)


@given(SEEDS)
def test_a_narrower_tube_has_narrower_bounds(rng: random.Random) -> None:
    lower, upper, inner = _tube(rng)
    text = formula(rng, 2)
    low, high = robustness_bounds(text, lower, upper)
    inner_low, inner_high = robustness_bounds(text, inner, upper)
    assert (low <= inner_low).all()
    assert (inner_high <= high).all()


def test_tight_where_each_signal_occurs_once() -> None:
    rng = random.Random(5)
    text = "always[0,3] (x > 0 -> (y > 0 until[1,2] not z > 1))"
    for _ in range(20):
        lower, upper, _ = _tube(rng)
        worst = {"x": upper["x"], "y": lower["y"], "z": upper["z"]}
        best = {"x": lower["x"], "y": upper["y"], "z": lower["z"]}
        low, high = robustness_bounds(text, lower, upper)
        np.testing.assert_array_equal(low, robustness(text, worst))
        np.testing.assert_array_equal(high, robustness(text, best))


@pytest.mark.parametrize(
    "text",
    [
        "x * y > 0",
        "x + y > 1",
        "x - y > 1",
        "x > y",
        "x == y",
        "x !== y",
        "abs(x) > 1",
        "x / 4 > y",
        "x / (y + 5) > 0",
        "x / (y - 5) > 0",
        "rate(x, y + 5, 0, 7) > 0",
        "exp(x) > y",
        "sqrt(x + 3) > y",
        "pow(x, 2) > y",
        "pow(x, 3) > y",
        "pow(x, 0) > y",
        "pow(x + 4, -1) > y",
        "pow(x - 4, -1) > y",
        "pow(x - 4, -2) > y",
        "pow(x + 3, .5) > y",
        "pow(x + 3.5, -.5) > y",
    ],
)
def test_arithmetic_reaches_what_a_grid_of_values_reaches(text: str) -> None:
    for (a, b), (c, d) in itertools.product([(-3, -1), (-1, 3), (0, 2), (2, 2)], repeat=2):
        low, high = robustness_bounds(text, {"x": [a], "y": [c]}, {"x": [b], "y": [d]})
        # 0 and both ends are on the grid: all extremes of these functions lie there
        x, y = np.meshgrid(
            np.union1d(np.linspace(a, b, 9), [0.0] if a < 0 < b else [a]), np.linspace(c, d, 61)
        )
        values = robustness(text, {"x": x.ravel(), "y": y.ravel()})
        if text in ("x == y", "x !== y"):  # the least distance lies between points of the grid
            assert (low <= values.min()).all()
            assert (values.max() <= high).all()
            assert low[0] == pytest.approx(values.min(), abs=0.3)
            assert high[0] == pytest.approx(values.max(), abs=0.3)
        else:
            assert low[0] == pytest.approx(values.min())
            assert high[0] == pytest.approx(values.max())


def test_nothing_known_of_a_sample_is_an_infinite_width() -> None:
    unknown = float("inf")
    low, high = robustness_bounds("always x > 1", {"x": [2, -unknown]}, {"x": [3, unknown]})
    assert low.tolist() == [-unknown, -unknown]
    assert high.tolist() == [2.0, unknown]
    low, high = robustness_bounds(
        "x == y", {"x": [-unknown], "y": [unknown]}, {"x": [unknown], "y": [unknown]}
    )
    assert (low[0], high[0]) == (-unknown, 0.0)


@pytest.mark.parametrize(
    ("text", "x", "y", "bounds"),
    [
        ("x * y", (0, 1), (0, INF), (0, INF)),
        ("x * y", (0, 0), (-INF, INF), (0, 0)),
        ("x * y", (-1, 0), (2, INF), (-INF, 0)),
        ("x * y", (-1, 1), (3, INF), (-INF, INF)),
        ("x * y", (2, 3), (1, INF), (2, INF)),
        ("x * y", (0, 1), (INF, INF), (0, INF)),
        ("x / y", (0, INF), (1, INF), (0, INF)),
        ("x / y", (-INF, 4), (-INF, -2), (-2, INF)),
        ("x / y", (3, 4), (2, INF), (0, 2)),
        ("rate(x, y, 0, 7)", (0, INF), (1, INF), (0, INF)),
    ],
)
def test_an_infinite_end_is_as_large_as_one_likes(
    text: str, x: tuple[float, float], y: tuple[float, float], bounds: tuple[float, float]
) -> None:
    low, high = robustness_bounds(text, {"x": [x[0]], "y": [y[0]]}, {"x": [x[1]], "y": [y[1]]})
    assert (low[0], high[0]) == bounds


def _product(rng: random.Random, depth: int = 3) -> str:
    """Products and quotients, which may have no value where their arguments are 0 or infinite."""
    if not depth or rng.random() < 0.2:
        return rng.choice(("x", "y", "z", "-2", "0"))
    a, b = _product(rng, depth - 1), _product(rng, depth - 1)
    return rng.choice(
        (f"({a} * {b})", f"({a} / (abs({b}) + 1))", f"rate({a}, (abs({b}) + 1), 0)", f"pow({a}, 2)")
    )


@given(SEEDS)
def test_traces_that_have_a_value_lie_within_bounds_without_end(rng: random.Random) -> None:
    text = _product(rng)
    low = {name: np.array([rng.choice((-INF, -1.0, 0.0, 0.0, 2.0, INF))]) for name in "xyz"}
    high = {name: np.array([max(values[0], rng.choice((0.0, 1.0, INF)))]) for name, values in low.items()}
    told, inside = None, 0
    try:
        told = robustness_bounds(text, low, high)
    except DataError as error:
        assert "has no value at sample 0" in str(error)
    for _ in range(30):
        drawn = {
            name: np.clip(rng.choice((-1e9, -1.0, -1e-9, 0.0, 1e-9, 1.0, 1e9, INF)), low[name], high[name])
            for name in low
        }
        try:
            value = robustness(text, drawn)
        except DataError:
            continue
        inside += 1
        assert told is None or told[0] <= value <= told[1], (text, low, high, drawn)
    assert told is not None or not inside, (text, low, high)


def test_a_formula_without_signals_takes_the_length_of_the_traces() -> None:
    low, high = robustness_bounds("true", {"x": [1, 2]}, {"x": [1, 3]})
    assert low.tolist() == high.tolist() == [float("inf")] * 2


def test_bounds_in_seconds_follow_the_period() -> None:
    low, _ = robustness_bounds("always[0,1] x > 0", {"x": [3, 2, 1]}, {"x": [3, 2, 1]}, period=0.5)
    assert low.tolist() == [1.0, 1.0, 1.0]


def test_every_operator_has_a_rule() -> None:
    covered = "x + y > x - y * x / 5 and x == y or exp(x) > sqrt(abs(pow(x, 2))) * rate(x, y, 1, 0)"
    low, high = robustness_bounds(f"not ({covered})", {"x": [1.0], "y": [1.0]}, {"x": [2.0], "y": [2.0]})
    assert low[0] < high[0]
    used = "add subtract multiply divide ratio and distance or exp sqrt abs power not difference"
    assert set(used.split()) == POINTWISE.keys()
    # all of these but age are taken to rise with their arguments
    assert {operator.shape for operator in TEMPORAL.values()} <= {
        "window",
        "until",
        "shift",
        "sum",
        "quantile",
        "age",
    }


def test_the_age_of_an_event_falls_where_its_signal_rises() -> None:
    low, high = robustness_bounds("age_since(x > 0) > 0", {"x": [1, -1, -3]}, {"x": [1, 1, -2]})
    assert low.tolist() == [0.0, 0.0, 1.0]
    assert high.tolist() == [0.0, 1.0, 2.0]


def test_a_rate_without_cases_has_its_value_for_that_where_this_is_known() -> None:
    low, high = robustness_bounds(
        "rate(x, y, 0, 5) > 0", {"x": [0, 1], "y": [0, 2]}, {"x": [0, 3], "y": [0, 4]}
    )
    assert low.tolist() == [5.0, 0.25]
    assert high.tolist() == [5.0, 1.5]


@pytest.mark.parametrize(
    ("text", "lower", "upper", "kind", "told"),
    [
        ("x > 0", {"x": [1, 3]}, {"x": [2, 2]}, DataError, "'x'.*exceeds the upper one at sample 1"),
        ("x > 0", {"y": [1]}, {"x": [2]}, UsageError, "'x'; the lower trace has: y"),
        ("x > 0", {"x": [1]}, {"y": [2]}, UsageError, "'x'; the upper trace has: y"),
        ("x > 0", {"x": [1, 2]}, {"x": [2]}, DataError, "one length"),
        (
            "x > 0",
            {"x": [1]},
            {"x": [float("nan")]},
            DataError,
            "the upper trace: signal 'x' is NaN at sample 0",
        ),
        ("1 / x > 0", {"x": [1, -1]}, {"x": [2, 2]}, DataError, "divide by 0 at sample 1"),
        ("rate(x, x, 0, 1) > 0", {"x": [1, 0]}, {"x": [2, 2]}, DataError, "divide by 0 at sample 1"),
        ("pow(x, -2) > 0", {"x": [-1]}, {"x": [2]}, DataError, "divide by 0 at sample 0"),
        ("pow(x, y) > 0", {"x": [1], "y": [1]}, {"x": [2], "y": [2]}, UsageError, "constant exponent"),
        ("sqrt(x) > 0", {"x": [-2]}, {"x": [-1]}, DataError, "no value at sample 0"),
        (
            "x * y",
            {"x": [1, 0], "y": [INF, INF]},
            {"x": [2, 0], "y": [INF, INF]},
            DataError,
            "column 3: 'x . y' has no value at sample 1 .*guard it",
        ),
        (
            "x / y",
            {"x": [INF], "y": [INF]},
            {"x": [INF], "y": [INF]},
            DataError,
            "'x / y' has no value at sample 0",
        ),
    ],
)
def test_what_cannot_be_bounded_is_told(
    text: str, lower: dict, upper: dict, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        robustness_bounds(text, lower, upper)
