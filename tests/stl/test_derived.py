"""Sums, rates, quantiles and ages: what they are by definition, and the same on a stream to the last bit."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stl.by_definition import by_definition
from stl.formulas import derived, formula, trace

from phalanx.errors import DataError
from phalanx.stl import Monitor, Verdict, diagnose, parse, robustness
from phalanx.stl.derived import Age, Quantile, Sum, ages, quantiles, rank, sums

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)
VALUES = st.lists(st.floats(allow_nan=False), min_size=1, max_size=50)
LENGTHS = st.integers(1, 12) | st.just(10**12)
OPERATORS = ("always", "eventually", "until", "since", "once", "next", "prev", "and", "or", "not", "iff")


def bits(values: Any) -> list[bytes]:
    """What a number is to the last bit, the sign of a zero too."""
    return [np.float64(value).tobytes() if value == value else b"NaN" for value in values]


def streamed(text: str, signals: dict[str, Any], period: float = 1.0) -> list[Verdict]:
    """All verdicts on a trace, those at its end too."""
    monitor = Monitor(text, period)
    length = len(next(iter(signals.values())))
    verdicts = [monitor.update({name: v[t] for name, v in signals.items()}) for t in range(length)]
    return [verdict for verdict in verdicts if verdict.known] + monitor.finish()


@given(VALUES, LENGTHS)
@example([1e308, 1e308, -1e308, 0.0], 3)
@example([math.inf, 1.0, -math.inf, 2.0], 2)
@example([-0.0, -0.0, 0.0], 2)
def test_a_sum_on_a_stream_is_that_of_the_whole_trace(values: list[float], length: int) -> None:
    stream = Sum(length)
    assert bits(stream(value) for value in values) == bits(sums(np.array(values), length))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), LENGTHS)
def test_a_sum_is_the_exact_one_up_to_roundings_of_its_own_window(values: list[float], length: int) -> None:
    found = sums(np.array(values), length)
    for t, value in enumerate(found):
        window = values[max(0, t - length + 1) : t + 1]
        bound = len(window) * np.finfo(float).eps * math.fsum(map(abs, window))
        assert abs(value - math.fsum(window)) <= bound


def test_what_has_left_the_window_leaves_no_error() -> None:
    stream = Sum(3)
    found = [stream(value) for value in (1e300, 1e-300, *[0.1] * 5)]
    assert found[-1] == 0.1 + 0.1 + 0.1 and found[4] == 0.1 + 0.1 + 0.1


@given(st.floats(0, 1), st.integers(1, 200))
@example(0.07, 100)
@example(0.29, 100)
@example(1.0, 49)
@example(5e-324, 3)
def test_the_rank_is_the_least_with_that_share(share: float, count: int) -> None:
    assert rank(share, count) == next(k for k in range(1, count + 1) if k / count >= share)


@pytest.mark.parametrize("percent", range(101))
def test_a_share_in_hundredths_of_a_hundred_values_is_its_rank(percent: int) -> None:
    assert rank(float(f"{percent}e-2"), 100) == max(1, percent)


@given(VALUES, st.floats(0, 1), LENGTHS)
def test_a_quantile_is_numpys_inverted_cdf(values: list[float], share: float, length: int) -> None:
    share = round(share, 2)
    found = quantiles(np.array(values), share, length)
    stream = Quantile(share, length)
    assert bits(stream(value) for value in values) == bits(found)
    for t, value in enumerate(found):
        window = values[max(0, t - length + 1) : t + 1]
        assert value == sorted(window)[rank(share, len(window)) - 1]
        if (
            abs(share * len(window) - round(share * len(window))) > 1e-6
        ):  # numpy does not undo the product's rounding
            assert value == np.quantile(window, share, method="inverted_cdf")


@given(VALUES, st.integers(1, 10**12))
def test_an_age_is_the_time_since(values: list[float], period_ns: int) -> None:
    stream = Age(period_ns)
    found = ages(np.array(values), period_ns)
    assert bits(stream(value) for value in values) == bits(found)
    for t, age in enumerate(found):
        events = [u for u in range(t + 1) if values[u] > 0]
        assert age == ((t - events[-1]) * period_ns / 1e9 if events else math.inf)


@given(SEEDS)
def test_as_the_definition_says(rng: random.Random) -> None:
    signals = trace(rng, longest=9)
    text = formula(rng, rng.randint(0, 2), leaf=derived)
    expected = by_definition(parse(text), signals)
    np.testing.assert_allclose(robustness(text, signals), expected, rtol=1e-12, atol=1e-9)


@given(SEEDS)
def test_a_stream_is_told_what_the_whole_trace_says(rng: random.Random) -> None:
    depth = rng.randint(0, 4)
    text = formula(rng, depth, OPERATORS, bounded=True, leaf=derived)
    signals = trace(rng, longest=60)
    whole, monitor = robustness(text, signals), Monitor(text)
    low, high, known = -math.inf, math.inf, []
    for t in range(len(whole)):
        verdict = monitor.update({name: values[t] for name, values in signals.items()})
        assert verdict.lo <= whole[verdict.sample] <= verdict.hi
        if verdict.sample == 0:
            assert low <= verdict.lo <= verdict.hi <= high
            low, high = verdict.lo, verdict.hi
        if monitor.horizon is not None and t >= monitor.horizon:
            assert verdict.known
            known.append(verdict)
    known += monitor.finish()
    assert [verdict.sample for verdict in known] == list(range(len(whole)))
    same = list if depth else bits  # of 0 and -0 a window may take either
    assert same(verdict.lo for verdict in known) == same(whole.tolist())


def test_editing_outside_what_is_reported_never_flips_the_verdict() -> None:
    named, lengths = 0, 0
    for seed in range(48):
        rng = random.Random(seed)
        text, signals = formula(rng, seed % 4, OPERATORS, leaf=derived), trace(rng)
        sample = rng.randrange(len(signals["x"]))
        found = diagnose(text, signals, sample)
        kept = {name: set() for name in signals}
        for cause in found.causes:
            for name in cause.signals:
                kept[name] |= set(cause.samples)
        named += sum(map(len, kept.values()))
        lengths += 3 * len(signals["x"])
        for _ in range(4):
            other = {
                name: [
                    v if t in kept[name] else rng.choice((-9.0, 0.0, 9.0, v)) for t, v in enumerate(values)
                ]
                for name, values in signals.items()
            }
            again = robustness(text, other)[sample]
            if found.robustness:
                assert (again >= 0) == found.satisfied or again == 0, (text, sample, found)
    assert 0 < named < lengths


def test_reasons_end_at_the_window_and_at_the_last_event() -> None:
    signals = {"x": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]}
    causes = {
        text: diagnose(text, signals, sample=5).causes[0].samples
        for text in ("sum(x, 2) < 3", "quantile(x, 0, 3) > 1", "age_since(x) < 3", "age_since(x - 1) < 3")
    }
    assert list(causes.values()) == [(3, 4, 5), (2, 3, 4, 5), (4, 5), (0, 1, 2, 3, 4, 5)]


def test_rates_with_and_without_a_denominator() -> None:
    signals = {"tp": [0.0, 1.0, 2.0, 0.0], "pos": [0.0, 2.0, 2.0, 0.0]}
    text = "rate(tp, pos, 1s, -1)"
    signals_above_0 = {"tp": [3.0, 1.0, 2.0, 0.5], "pos": [1.0, 7.0, 2.0, 3.0]}
    for quotient in ("rate(tp, pos, 2)", "rate(tp, pos, 2, 9)"):
        expected = robustness("sum(tp, 2) / sum(pos, 2)", signals_above_0)
        assert robustness(quotient, signals_above_0).tolist() == expected.tolist()
    assert robustness(text, signals).tolist() == [-1.0, 0.5, 0.75, 1.0]
    assert [verdict.lo for verdict in streamed(text, signals)] == [-1.0, 0.5, 0.75, 1.0]
    told = r"'rate\(tp, pos, 1s\)' has no value at sample 0 .*give rate a fourth argument"
    with pytest.raises(DataError, match=told):
        robustness("rate(tp, pos, 1s)", signals)
    with pytest.raises(DataError, match=told):
        streamed("rate(tp, pos, 1s)", signals)


def test_infinities_of_both_signs_in_one_window_have_no_sum() -> None:
    text, signals = "sum(x, 1) > 0", {"x": [1.0, math.inf, 2.0, -math.inf, 3.0]}
    assert robustness(text, signals).tolist() == [1, math.inf, math.inf, -math.inf, -math.inf]
    signals["x"][2] = -math.inf
    for watch in (robustness, streamed):
        with pytest.raises(DataError, match=r"'sum\(x, 1\)' has no value at sample 2"):
            watch(text, signals)


def test_time_is_that_of_the_period() -> None:
    signals = {"x": [0.0, 1.0, 0.0, 0.0]}
    assert robustness("age_since(x)", signals, period=0.1).tolist() == [math.inf, 0.0, 0.1, 0.2]
    assert robustness("sum(x, 200ms)", signals, period=0.1).tolist() == [0, 1, 1, 1]
    for verdict, value in zip(streamed("age_since(x)", signals, 0.1), (math.inf, 0.0, 0.1, 0.2), strict=True):
        assert verdict.lo == value


def test_a_number_has_no_horizon_and_its_argument_has() -> None:
    assert parse("quantile(x, .5, 10) > rate(x, y, 7)").horizon_ns == 0
    assert Monitor("age_since(eventually[0,3] x > 0) < 5").horizon == 3


def test_memory_holds_no_more_than_two_windows() -> None:
    total, median = Sum(10), Quantile(0.5, 10)
    for t in range(1000):
        total(float(t))
        median(float(t))
        assert len(total._block) + len(total._after) <= 20 and len(median._sorted) <= 10
