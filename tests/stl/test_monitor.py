"""Verdicts on a stream: those of whole traces as soon as they are known, and bounds of them before."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import STRATA, formula, trace

from phalanx.errors import DataError, UsageError
from phalanx.stl import Monitor, Verdict, parse, robustness
from phalanx.stl.windows import Extreme, Steps

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


def watch(monitor: Monitor, signals: Any) -> list[Verdict]:
    """All verdicts of a trace."""
    length = len(next(iter(signals.values())))
    return [monitor.update({name: values[t] for name, values in signals.items()}) for t in range(length)]


def check(text: str, signals: Any) -> bool:
    """Compares stream and whole trace; False where the text cannot be watched."""
    try:
        monitor = Monitor(text)
    except UsageError as error:
        assert "no bound" in str(error)
        return False
    whole = robustness(text, signals)
    verdicts = watch(monitor, signals)
    low, high = -math.inf, math.inf
    for t, verdict in enumerate(verdicts):
        final = whole[verdict.sample]
        assert verdict.lo <= final <= verdict.hi, (text, t)
        if verdict.sample == 0:
            assert low <= verdict.lo <= verdict.hi <= high, (text, t)
            low, high = verdict.lo, verdict.hi
        if monitor.horizon is not None and t >= monitor.horizon:
            assert verdict.sample == t - monitor.horizon and verdict.known, (text, t)
        else:
            assert verdict.sample == 0
    rest = monitor.finish()
    assert all(verdict.known and verdict.lo == whole[verdict.sample] for verdict in rest), text
    if monitor.horizon is not None:
        assert [v.sample for v in rest] == list(range(max(0, len(whole) - monitor.horizon), len(whole)))
    else:
        assert [v.sample for v in rest] == [0]
    return True


@pytest.mark.parametrize("kind", STRATA)
def test_a_stream_is_told_what_the_whole_trace_says(kind: str) -> None:
    watched = 0
    for seed in range(40):
        rng = random.Random(f"{kind} {seed}")
        watched += check(formula(rng, rng.randint(0, 4), STRATA[kind]), trace(rng, longest=40))
    assert watched >= 12


@given(SEEDS)
def test_bounded_formulas_of_any_depth(rng: random.Random) -> None:
    operators = (
        "always",
        "eventually",
        "until",
        "since",
        "once",
        "historically",
        "next",
        "prev",
        "and",
        "iff",
    )
    text = formula(rng, rng.randint(1, 6), operators, bounded=True)
    assert check(text, trace(rng, longest=60))


@given(SEEDS, st.integers(1, 9), st.booleans())
def test_extreme_is_that_of_the_last_values(rng: random.Random, length: int, least: bool) -> None:
    values = [float(rng.randint(-5, 5)) for _ in range(40)]
    window, ever = Extreme(least, length), Extreme(least, None)
    for t, value in enumerate(values):
        of = min if least else max
        assert window(value) == of(values[max(0, t - length + 1) : t + 1])
        assert ever(value) == of(values[: t + 1])


@given(SEEDS, st.integers(1, 9), st.booleans())
def test_steps_are_taken_in_a_row(rng: random.Random, length: int, newest_last: bool) -> None:
    pairs = [(float(rng.randint(-5, 5)), float(rng.randint(-5, 5))) for _ in range(40)]
    steps = Steps(length, newest_last)
    for t, (left, right) in enumerate(pairs):
        window = pairs[max(0, t - length + 1) : t + 1]
        expected = -math.inf
        for a, b in window if newest_last else reversed(window):
            expected = max(b, min(a, expected))
        assert steps(left, right) == expected


def test_memory_does_not_grow_with_the_stream() -> None:
    monitor = Monitor("(G[0,5] x > 0) U[2,9] (O[1,4] y > 0)")
    rng = np.random.default_rng(0)

    def held() -> int:
        found = 0
        for stage in monitor._stages:
            for part in vars(stage).values():
                for each in part if isinstance(part, list | tuple) else (part,):
                    for store in each if isinstance(each, tuple) else (each,):
                        sizes = [getattr(store, name, ()) for name in ("held", "_wedge", "_front", "_back")]
                        found += sum(map(len, sizes))
        return found

    sizes = []
    for _ in range(400):
        monitor.update({"x": rng.normal(), "y": rng.normal()})
        sizes.append(held())
    assert 0 < max(sizes[200:]) <= max(sizes[:200]) + 4 and max(sizes) < 80


def test_always_without_a_bound_is_a_running_least() -> None:
    monitor = Monitor("always (threat > 0 -> eventually[0,2] answer > 0)")
    assert monitor.horizon is None
    samples = [(1, -1), (-1, -1), (-1, 2), (3, -1), (-1, -1), (-1, -2), (-1, -1)]
    verdicts = [monitor.update({"threat": float(a), "answer": float(b)}) for a, b in samples]
    assert [v.hi for v in verdicts] == [math.inf, math.inf, 2, 2, 2, -1, -1]
    assert all(v.lo == -math.inf for v in verdicts)
    assert [v.satisfied for v in verdicts] == [None] * 5 + [False] * 2
    assert monitor.finish() == [Verdict(-1, -1, 0)]


def test_what_is_certain_early_is_said_early() -> None:
    monitor = Monitor("x > 0 until[0,5] y > 0")
    assert monitor.update({"x": 1, "y": -1}) == Verdict(-1, 1, 0)
    assert monitor.update({"x": 2, "y": 3}) == Verdict(1, 1, 0)
    assert Verdict(0, 0, 0).satisfied is True and Verdict(-1, 0, 0).satisfied is None
    assert Monitor("F[0,9] x > 0").update({"x": 2}).satisfied is True
    assert Monitor("G[0,9] x > 0").update({"x": -2}).satisfied is False
    assert Monitor("G[0,9] x > 0").update({"x": 2}).satisfied is None


def test_period_and_formula() -> None:
    monitor = Monitor(parse("F[0,200ms] x > 0"), period=0.1)
    assert monitor.horizon == 2
    with pytest.raises(UsageError, match="no multiple"):
        Monitor("F[0,250ms] x > 0", period=0.1)


def test_what_cannot_be_known_is_refused() -> None:
    with pytest.raises(UsageError, match="column 8: eventually has no bound"):
        Monitor("G[0,5] eventually x > 0")
    with pytest.raises(UsageError, match="column 4: U has no bound"):
        Monitor("(x U y) since[0,1] x")
    Monitor("(F x > 0) and not (G y > 0)")


def test_a_bad_sample_is_not_taken_in() -> None:
    monitor = Monitor("prev x > 0")
    monitor.update({"x": 1.0})
    for bad, error, told in (
        ({"y": 1.0}, UsageError, "sample 1 has no signal 'x'; it has: y"),
        ({"x": math.nan}, DataError, "NaN at sample 1"),
        ({"x": "a"}, DataError, "'x' at sample 1"),
    ):
        with pytest.raises(error, match=told):
            monitor.update(bad)
    assert monitor.update({"x": 5.0}) == Verdict(1, 1, 1)


def test_arithmetic_without_a_result_ends_the_monitor() -> None:
    monitor = Monitor("1 / x > 0")
    monitor.update({"x": 1.0})
    with pytest.raises(DataError, match="'1 / x' has no value at sample 1"):
        monitor.update({"x": 0.0})
    with pytest.raises(DataError, match="start a new one"):
        monitor.update({"x": 1.0})


def test_shared_parts_cost_no_more_than_one_and_depth_is_no_matter() -> None:
    doubled = "a0 = always x > 0" + "".join(
        f"; a{i} = a{i - 1} xor (a{i - 1} and y > 1)" for i in range(1, 60)
    )
    monitor = Monitor(doubled)  # as a tree it would have 2^60 nodes
    assert monitor.update({"x": 1, "y": 2}).sample == 0
    deep = "a0 = always x > 0" + "".join(f"; a{i} = a{i - 1} and y > {i}" for i in range(1, 2000))
    assert Monitor(deep).update({"x": 1, "y": 2}).hi == -1997
    assert Monitor("G[0,86400s] x > 0", period=1e-6).update({"x": 3}) == Verdict(-math.inf, 3, 0)


def test_the_end_takes_as_long_as_the_stream_and_not_as_the_horizon() -> None:
    for text in ("always[0,86400] x > 0", "(x > 0) until[3600,86400] (x > 1)", "F[5,86400] H[0,86400] x > 0"):
        monitor = Monitor(text, period=1e-6)
        for _ in range(3):
            monitor.update({"x": 2.0})
        whole = robustness(text, {"x": [2.0] * 3}, period=1e-6)
        assert [verdict.lo for verdict in monitor.finish()] == whole.tolist()


def test_arithmetic_without_a_result_at_the_end() -> None:
    for text, x in (("1 / (eventually[0,5] x) > 0", 0.0), ("1 / (always x) > 0", 0.0)):
        monitor = Monitor(text)
        monitor.update({"x": x})
        with pytest.raises(DataError, match="'1 / .* has no value at sample 0"):
            monitor.finish()
        with pytest.raises(DataError, match="has no value at sample 0.*start a new one"):
            monitor.finish()
    monitor = Monitor("sqrt(always x) > 0")
    monitor.update({"x": 4.0})
    assert monitor.finish() == [Verdict(2.0, 2.0, 0)]


def test_names_that_the_formula_defines_are_no_signals() -> None:
    with pytest.raises(UsageError, match="'hot' is defined in the formula"):
        Monitor("hot = x > 3; always[0,1] hot").update({"x": 1, "hot": 99})


def test_a_finished_stream_takes_nothing_in() -> None:
    monitor = Monitor("x > 0")
    assert monitor.finish() == []
    with pytest.raises(DataError, match="has ended"):
        monitor.update({"x": 1.0})
