"""Robustness where samples have times of their own: whole traces and streams."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stl import formulas
from stl.events import by_definition, formula, scaled, times

from phalanx.errors import DataError, UsageError
from phalanx.stl import parse, robustness
from phalanx.stl.event_monitor import EventMonitor, EventVerdict, time_in_ns
from phalanx.stl.event_time import robustness_at

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


def drawn(rng: random.Random, longest: int = 24) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    signals = formulas.trace(rng, longest)
    return times(rng, len(signals["x"])), signals


@given(SEEDS)
def test_as_the_definition_says(rng: random.Random) -> None:
    at_ns, signals = drawn(rng)
    text = formula(rng, rng.randint(0, 3), bounded=False)
    assert robustness_at(text, at_ns, signals).tolist() == by_definition(parse(text), at_ns, signals)


@given(SEEDS)
def test_a_stream_is_told_what_the_whole_trace_says(rng: random.Random) -> None:
    at_ns, signals = drawn(rng, longest=40)
    text = formula(rng, rng.randint(0, 4), bounded=True)
    whole = robustness_at(text, at_ns, signals)
    monitor = EventMonitor(text)
    told: list[EventVerdict] = []
    shown: dict[int, tuple[float, float]] = {}
    for i, at in enumerate(at_ns.tolist()):
        told += monitor.update(at, {name: values[i] for name, values in signals.items()})
        if rng.random() < 0.3:
            told += monitor.advance(
                at + rng.choice((0, (int(at_ns[i + 1]) - at - 1) if i + 1 < len(at_ns) else 9**9))
            )
        pending = monitor.pending
        assert monitor.open == i + 1 - len(told)
        if pending is None:
            assert len(told) == i + 1
            continue
        assert (pending.sample, pending.time_ns) == (len(told), at_ns[len(told)])
        low, high = shown.get(pending.sample, (-math.inf, math.inf))
        assert low <= pending.lo <= whole[pending.sample] <= pending.hi <= high, text
        shown[pending.sample] = pending.lo, pending.hi
    told += monitor.finish()
    assert told == [EventVerdict(v, v, i, at) for i, (v, at) in enumerate(zip(whole, at_ns, strict=True))], (
        text
    )


@given(SEEDS)
def test_a_verdict_comes_as_soon_as_its_time_has_passed(rng: random.Random) -> None:
    at_ns, signals = drawn(rng)
    text = formulas.formula(
        rng, rng.randint(1, 3), ("always", "eventually", "until", "since", "and", "once"), bounded=True
    )
    monitor = EventMonitor(text)
    horizon = monitor.formula.horizon_ns
    assert horizon is not None
    told: list[EventVerdict] = []
    for i, at in enumerate(at_ns.tolist()):
        told += monitor.update(at, {name: values[i] for name, values in signals.items()})
        assert len(told) == sum(int(before) + horizon <= at for before in at_ns[: i + 1])
        due = monitor.due_ns
        assert due == (int(at_ns[len(told)]) + horizon if monitor.open else None)
        if due is not None and (i + 1 == len(at_ns) or due < at_ns[i + 1]):
            assert monitor.advance(due - 1) == []
            news = monitor.advance(due)
            assert [v.sample for v in news] == [len(told)]
            told += news


@given(SEEDS)
def test_even_times_are_ticks(rng: random.Random) -> None:
    text, signals = formulas.formula(rng, rng.randint(0, 4)), formulas.trace(rng)
    period = rng.choice((1, 0.1, 60))
    at_ns = np.arange(len(signals["x"])) * round(period * 1e9) + rng.randint(0, 9)
    found = robustness_at(scaled(text, round(period * 1000)), at_ns, signals)
    np.testing.assert_array_equal(found, robustness(text, signals), err_msg=text)


@given(SEEDS)
def test_what_is_missing_is_any_value(rng: random.Random) -> None:
    at_ns, signals = drawn(rng)
    text = formula(rng, rng.randint(0, 4), bounded=True)
    gone = {name: np.array([rng.random() < 0.2 for _ in values]) for name, values in signals.items()}
    monitor = EventMonitor(text)
    told: list[EventVerdict] = []
    shown: list[EventVerdict] = []
    for i, at in enumerate(at_ns.tolist()):
        empty = rng.choice(({}, None, math.nan))
        sample: dict[str, Any] = {name: values[i] for name, values in signals.items() if not gone[name][i]}
        if empty != {}:
            sample |= {name: empty for name in signals if gone[name][i]}
        told += monitor.update(at, sample)
        if pending := monitor.pending:
            shown.append(pending)
    told += monitor.finish()
    assert [v.sample for v in told] == list(range(len(at_ns)))
    for _ in range(4):
        filled = {
            name: np.where(
                gone[name], [rng.choice((rng.uniform(-9, 9), math.inf, 0.0)) for _ in values], values
            )
            for name, values in signals.items()
        }
        if "exp" in text or "+" in text or "*" in text:
            filled = {name: np.clip(values, -9, 9) for name, values in filled.items()}
        whole = robustness_at(text, at_ns, filled)
        assert all(v.lo <= whole[v.sample] <= v.hi for v in told + shown), text


def test_what_does_not_depend_on_the_missing_is_exact() -> None:
    monitor = EventMonitor("x > 0 or once[0,2] y > 0")
    told = [
        *monitor.update(0, {"x": 1, "y": 2}),
        *monitor.update(10**9, {"y": 3}),
        *monitor.update(2 * 10**9, {"x": -1}),
        *monitor.update(4 * 10**9, {"x": 5.0, "y": None}),
        *monitor.update(7 * 10**9, {"x": -4.0, "y": -1}),
    ]
    assert [(v.lo, v.hi, v.satisfied) for v in told] == [
        (2, 2, True),
        (3, math.inf, True),
        (3, math.inf, True),
        (5, math.inf, True),
        (-1, -1, False),
    ]
    assert EventMonitor("x > 0").update(0, {}) == [EventVerdict(-math.inf, math.inf, 0, 0)]
    assert EventMonitor("x > 0").update(0, {})[0].satisfied is None


def test_a_value_can_be_held() -> None:
    monitor = EventMonitor("historically[0,2] x > 0", missing="hold")
    unknown, first, second = (monitor.update(t, sample)[0] for t, sample in ((0, {}), (1, {"x": 3}), (2, {})))
    assert (unknown.lo, unknown.hi) == (-math.inf, math.inf) and (first.lo, first.hi) == (-math.inf, 3)
    assert (second.lo, second.hi) == (-math.inf, 3)
    assert monitor.update(3_000_000_000, {"x": None})[0][:2] == (3, 3)


def test_always_without_a_bound_has_one_verdict() -> None:
    monitor = EventMonitor("always (threat > 0 -> eventually[0,200ms] answer > 0)")
    shown = []
    for at, threat, answer in ((0, 1, -1), (150, -1, 2), (300, 3, -1), (550, -1, -1), (900, -1, -1)):
        assert monitor.update(at * 10**6, {"threat": threat, "answer": answer}) == []
        pending = monitor.pending
        assert pending and (pending.lo, pending.sample, pending.time_ns) == (-math.inf, 0, 0)
        shown.append(pending.hi)
    assert shown == [math.inf, math.inf, 2, -1, -1]
    assert monitor.due_ns is None
    assert monitor.finish() == [EventVerdict(-1, -1, 0, 0)]
    with pytest.raises(UsageError, match="column 8: eventually has no bound"):
        EventMonitor("G[0,5] eventually x > 0")


@given(SEEDS)
def test_until_without_a_bound_at_the_top(rng: random.Random) -> None:
    at_ns, signals = drawn(rng)
    text = rng.choice(
        ("x > 0 until y > 0", "(always x > y) or (F[0,2] z > 0)", "not (eventually[0,1] x) and F y")
    )
    monitor = EventMonitor(text)
    for i, at in enumerate(at_ns.tolist()):
        assert monitor.update(at, {name: values[i] for name, values in signals.items()}) == []
    value = robustness_at(text, at_ns, signals)[0]
    pending = monitor.pending
    assert pending and pending.lo <= value <= pending.hi
    assert monitor.finish() == [EventVerdict(value, value, 0, int(at_ns[0]))]


NUMBERS = (
    "sum(x, 1500ms) > 0",
    "quantile(x, 0.25, 3) >= quantile(y, 1, 500ms)",
    "age_since(x > 0) < 2 and (G[0,1] sum(eventually[0,500ms] y, 2) > z)",
    "rate(x > 0, y > 0, 3, 1) > 0.5 until[500ms,2s] age_since(F[0,1] x > 1) <= 0.5",
)


@pytest.mark.parametrize("text", NUMBERS)
@settings(max_examples=15)
@given(rng=SEEDS)
def test_numbers_of_the_past(text: str, rng: random.Random) -> None:
    at_ns, signals = drawn(rng, longest=30)
    signals = {name: np.round(values * 4) for name, values in signals.items()}  # sums are exact in any order
    whole = robustness_at(text, at_ns, signals)
    assert whole.tolist() == by_definition(parse(text), at_ns, signals)
    ticks = robustness_at(text, np.arange(len(at_ns)) * 500_000_000, signals)
    np.testing.assert_array_equal(ticks, robustness(text, signals, period=0.5))
    gone = np.array([rng.random() < 0.2 for _ in at_ns])
    exact, partial = EventMonitor(text), EventMonitor(text)
    told, known = [], []
    for i, at in enumerate(at_ns.tolist()):
        sample = {name: values[i] for name, values in signals.items()}
        told += exact.update(at, sample)
        known += partial.update(at, sample | {"x": None} if gone[i] else sample)
        if pending := partial.pending:
            assert pending.lo <= whole[pending.sample] <= pending.hi
    told, known = told + exact.finish(), known + partial.finish()
    assert [v.lo for v in told] == [v.hi for v in told] == whole.tolist()
    assert all(v.lo <= value <= v.hi for v, value in zip(known, whole, strict=True))


@given(SEEDS)
def test_a_sum_is_the_same_to_the_last_bit_and_close_to_the_exact_one(rng: random.Random) -> None:
    at_ns, _ = drawn(rng, longest=60)
    x = np.array([rng.uniform(-1, 1) * 10 ** rng.randint(-9, 9) for _ in at_ns])
    whole = robustness_at("sum(x, 2) > 0", at_ns, {"x": x})
    monitor = EventMonitor("sum(x, 2) > 0")
    assert [
        monitor.update(at, {"x": v})[0].lo for at, v in zip(at_ns.tolist(), x, strict=True)
    ] == whole.tolist()
    exact = by_definition(parse("sum(x, 2) > 0"), at_ns, {"x": x})
    np.testing.assert_allclose(whole, exact, atol=1e-13 * np.abs(x).max(), rtol=0)


def test_a_sum_of_infinities_of_both_signs_is_none() -> None:
    with pytest.raises(DataError, match="no value at sample 1"):
        robustness_at("sum(x, 2) > 0", [0, 1], {"x": [math.inf, -math.inf]})
    monitor = EventMonitor("sum(x, 2) > 0")
    monitor.update(0, {"x": math.inf})
    with pytest.raises(DataError, match="no value"):
        monitor.update(1, {"x": -math.inf})
    unknown = EventMonitor("sum(x, 2) > 0")
    unknown.update(0, {"x": math.inf})
    assert unknown.update(1, {}) == [EventVerdict(-math.inf, math.inf, 1, 1)]


def held(monitor: EventMonitor) -> int:
    """Entries that the monitor's stages hold."""
    found = 0
    for stage in monitor._stages:
        for part in vars(stage).values():
            for each in part if isinstance(part, list) else (part,):
                names = getattr(type(each), "__slots__", ())
                stores = [getattr(each, name) for name in names] if names else [each]
                found += sum(len(store) for store in stores if hasattr(store, "__len__"))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "(G[0,5] x > 0) U[2,9] (O[1,4] y > 0)",
        "always (x > 0 -> F[0,3] y > 0)",
        "H (x > 0 since y > 0)",
        "next x > 0",
    ],
)
def test_memory_does_not_grow_with_the_stream(text: str) -> None:
    monitor, rng, sizes = EventMonitor(text), np.random.default_rng(0), []
    for i in range(600):
        monitor.update(i * 500_000_000, {"x": float(i), "y": rng.normal()} if i % 7 else {"x": i})
        sizes.append(held(monitor))
    assert 0 < max(sizes[300:]) <= max(sizes[:300]) + 4 and max(sizes) < 300


def test_a_bad_event_is_not_taken_in() -> None:
    monitor = EventMonitor("prev x > 0", missing="error")
    monitor.update(np.int64(5), {"x": 1.0})
    for at, bad, error, told in (
        (6, {"y": 1.0}, DataError, "event at 6 ns has no value of 'x'"),
        (6, {"x": math.nan}, DataError, "no value of 'x'"),
        (6, {"x": "a"}, DataError, "'x' at 6 ns"),
        (5, {"x": 1.0}, DataError, "event at 5 ns after 5 ns"),
        (2**63, {"x": 1.0}, UsageError, "beyond"),
    ):
        with pytest.raises(error, match=told):
            monitor.update(at, bad)
    with pytest.raises(UsageError, match="whole nanoseconds"):
        time_in_ns(6.0)
    assert monitor.update(6, {"x": 5.0}) == [EventVerdict(1, 1, 1, 6)]
    with pytest.raises(UsageError, match="'hot' is defined"):
        EventMonitor("hot = x > 3; hot").update(0, {"x": 1, "hot": 2})
    with pytest.raises(UsageError, match="choose one of: unknown, hold, error"):
        EventMonitor("x > 3", missing="drop")


def test_arithmetic_without_a_result_ends_the_monitor() -> None:
    monitor = EventMonitor("1 / x > 0")
    assert monitor.update(0, {})[0].satisfied is None
    with pytest.raises(DataError, match="'1 / x' has no value"):
        monitor.update(1, {"x": 0.0})
    with pytest.raises(DataError, match="start a new one"):
        monitor.update(2, {"x": 1.0})
    ended = EventMonitor("x > 0")
    assert ended.finish() == []
    with pytest.raises(DataError, match="has ended"):
        ended.advance(5)


@pytest.mark.parametrize(
    ("at_ns", "error", "told"),
    [
        ([0.0, 1.0], UsageError, "float64"),
        ([0], DataError, "1 values and the signals 2"),
        ([3, 3], DataError, "is 3 at sample 1 after 3"),
        ([0, 2**62 + 1], UsageError, "beyond"),
    ],
)
def test_times_that_are_none(at_ns: list[int], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        robustness_at("x > 0", at_ns, {"x": [1, 2]})
