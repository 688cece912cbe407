"""Many entities side by side: each has the values of a monitor of its own, bit for bit."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stl.formulas import STRATA, formula

from phalanx.errors import DataError, UsageError
from phalanx.stl import Monitor, robustness
from phalanx.stl.fleet import Fleet
from phalanx.stl.fleet_windows import FleetDelay, FleetSteps, FleetWindow

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


def check(text: str, rng: random.Random, scale: float = 1.0) -> None:
    """Entities take samples in lockstep or some at a time, begin anew now and then, and are compared with monitors."""
    count = rng.randint(1, 4)
    fleet, monitors = Fleet(text, count, period=0.5), [Monitor(text, period=0.5) for _ in range(count)]
    taken = [0] * count
    for _ in range(25):
        lockstep = rng.random() < 0.4
        rows = list(range(count)) if lockstep else rng.sample(range(count), rng.randint(0, count))
        values = {name: np.array([rng.randint(-4, 4) * scale for _ in rows]) for name in "xyz"}
        told = fleet.update(values, None if lockstep else rows)
        for place, entity in enumerate(rows):
            verdict = monitors[entity].update({name: values[name][place] for name in "xyz"})
            assert told.known[place] == (taken[entity] >= fleet.horizon)
            if told.known[place]:
                assert told.value[place] == verdict.lo == verdict.hi, text
                assert told.sample[place] == verdict.sample
            else:
                assert np.isnan(told.value[place]) and told.sample[place] == 0
            taken[entity] += 1
        if rng.random() < 0.04:
            again = rng.randrange(count)
            fleet.reset([again])
            monitors[again], taken[again] = Monitor(text, period=0.5), 0
    assert fleet.samples.tolist() == taken and fleet.horizon == monitors[0].horizon


@settings(max_examples=40)
@given(SEEDS)
def test_a_fleet_is_a_monitor_for_each_entity(rng: random.Random) -> None:
    check(formula(rng, rng.randint(0, 4), STRATA[rng.choice(list(STRATA))], bounded=True), rng)


@settings(max_examples=8)
@given(SEEDS, st.sampled_from((1.0, 0.1)))
@pytest.mark.parametrize(
    "text",
    [
        "sum(x, 2) > 0",
        "sum(F[0,1500ms] x, 3) > y until[500ms,4s] age_since(G[0,1] y > 0) < 2",
        "rate(x > 0, abs(y), 3, 1) > 0.5 or (historically x > 0) or (x > 0 since y > 1)",
        "exp(x) > pow(y, 2) or F[0,1] 3 > 2",
    ],
)
def test_numbers_of_the_past_and_unbounded_pasts(text: str, rng: random.Random, scale: float) -> None:
    check(text, rng, scale)


def windowed(values: NDArray[np.float64], t: int, length: int) -> NDArray[np.float64]:
    return values[max(0, t - length + 1) : t + 1]


@pytest.mark.parametrize("length", [1, 2, 3, 31, 255, 256, 257, 300, 1000])
@pytest.mark.parametrize("combine", [np.minimum, np.maximum, np.add])
def test_windows_of_any_length(length: int, combine: np.ufunc) -> None:
    rng = np.random.default_rng(length)
    pad = {np.minimum: math.inf, np.maximum: -math.inf, np.add: -0.0}[combine]
    values = rng.integers(-99, 99, (2 * length + 9, 7)).astype(float)
    window = FleetWindow(7, combine, pad, length)
    for t in range(len(values)):
        found = window(None, values[t]) if t % 3 else window(np.arange(7), values[t])
        if t % 7 == 0 or length < 9:
            assert found.tolist() == combine.reduce(windowed(values, t, length), axis=0).tolist()


@pytest.mark.parametrize("length", [7, 256, 261, 262])
@pytest.mark.parametrize("combine", [np.minimum, np.maximum, np.add])
def test_entities_that_begin_anew_leave_their_neighbours_alone(length: int, combine: np.ufunc) -> None:
    rng = np.random.default_rng(length)
    pad = {np.minimum: math.inf, np.maximum: -math.inf, np.add: -0.0}[combine]
    window, taken = FleetWindow(5, combine, pad, length), [[] for _ in range(5)]
    for t in range(3 * length):
        rows = None if t % 2 else np.flatnonzero(rng.random(5) < 0.7)
        drift = -9 * t if combine is np.maximum else 9 * t  # so that the oldest values tell
        values = rng.integers(-9, 9, 5 if rows is None else rows.size).astype(float) + drift
        found = window(rows, values)
        for entity, value in zip(range(5) if rows is None else rows, values, strict=True):
            taken[entity].append(value)
        if t % 3 == 0 or length < 9:
            told = [combine.reduce(taken[at][-length:]) for at in (range(5) if rows is None else rows)]
            assert found.tolist() == told
        if rng.random() < 4 / length:
            anew = np.flatnonzero(rng.random(5) < 0.4)
            window.reset(anew)
            for entity in anew:
                taken[entity].clear()


@pytest.mark.parametrize("newest_last", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 31, 257])
def test_steps_of_any_length(length: int, newest_last: bool) -> None:
    rng = np.random.default_rng(length)
    left, right = rng.integers(-99, 99, (2, 2 * length + 9, 7)).astype(float)
    right -= rng.integers(0, 200, (7,))
    steps = FleetSteps(7, length, newest_last)
    for t in range(len(left)):
        found = steps(None, left[t], right[t])
        expected = np.full(7, -math.inf)
        window = list(zip(windowed(left, t, length), windowed(right, t, length), strict=True))
        for a, b in window if newest_last else reversed(window):
            expected = np.maximum(b, np.minimum(a, expected))
        assert found.tolist() == expected.tolist()


def test_a_delay_gives_back_what_came_before() -> None:
    delay = FleetDelay(2, 2, -1.0)
    assert [delay(None, np.array([t, -t], float)).tolist() for t in range(4)] == [
        [-1, -1],
        [-1, -1],
        [0, 0],
        [1, -1],
    ]
    assert delay(np.array([1]), np.array([9.0])).tolist() == [-2]


def test_whole_traces_agree() -> None:
    signals = dict(zip("xyz", np.random.default_rng(0).normal(size=(3, 40)), strict=True))
    text = "(x > 0) until[1,4] (y > 0) -> H[2,5] z > 0"
    fleet = Fleet(text, 3)
    told = [
        fleet.update({name: np.full(3, values[t]) for name, values in signals.items()})
        for t in range(len(signals["x"]))
    ]
    found = np.array([each.value for each in told if each.known.all()])
    whole = robustness(text, signals)[: len(found)]
    np.testing.assert_array_equal(found, np.repeat(whole[:, None], 3, axis=1))


def test_memory_is_there_from_the_start_and_is_the_windows() -> None:
    fleet = Fleet("G[0,999] x < 100", 64)
    before = fleet.bytes_per_entity
    for _ in range(50):
        fleet.update({"x": np.zeros(64)})
    assert fleet.bytes_per_entity == before
    assert 8 * 1000 < before < 8 * 1000 + 200
    assert Fleet("H x < 100", 64).bytes_per_entity < 64


def test_the_input_is_left_alone_and_the_output_is_no_view() -> None:
    fleet, x = Fleet("x", 2), np.array([1.0, 2.0])
    fleet.update({"x": x}).value[:] = 9
    assert x.tolist() == [1, 2]
    running = Fleet("H x", 2)
    first = running.update({"x": x}).value
    running.update({"x": x - 5})
    assert first.tolist() == [1, 2]


def test_what_is_wrong_is_said() -> None:
    for text, told in (
        ("always x > 0", "column 1: always has no bound"),
        ("quantile(x, 0.5, 3) > 0", "not for fleets"),
        ("F[0,1500ms] x > 0", "no multiple"),
    ):
        with pytest.raises(UsageError, match=told):
            Fleet(text, 3)
    with pytest.raises(UsageError, match="entities 0: expected a whole number from 1"):
        Fleet("x", 0)
    fleet = Fleet("k = x > 0; prev k", 3)
    good = {"x": np.array([1.0, 2.0])}
    for values, entities, error, told in (
        ({}, None, UsageError, "no signal 'x'"),
        (good | {"k": good["x"]}, [0, 1], UsageError, "'k' is defined"),
        (good, None, DataError, "2 values; expected one for each of 3 entities"),
        ({"x": np.array([1, math.nan])}, [0, 1], DataError, "NaN at place 1"),
        ({"x": ["a", "b"]}, [0, 1], DataError, "no sequence of numbers"),
        (good, [0, 3], UsageError, "entity 3: expected"),
        (good, [-1, 2], UsageError, "entity -1: expected"),
        (good, [1, 1], UsageError, "entity 1 occurs twice"),
        (good, [0.0, 1.0], UsageError, "list of numbers"),
    ):
        with pytest.raises(error, match=told):
            fleet.update(values, entities)
    assert fleet.update(good, [2, 0]).value.tolist() == [math.inf, math.inf]
    assert fleet.update({"x": []}, []).value.shape == (0,)


def test_arithmetic_without_a_result_ends_the_fleet() -> None:
    fleet = Fleet("1 / (F[0,1] x) > 0", 2)
    fleet.update({"x": [0.0, 1.0]})
    with pytest.raises(DataError, match="'1 / .* has no value at sample 0"):
        fleet.update({"x": [0.0, 0.0]})
    with pytest.raises(DataError, match="start a new one"):
        fleet.update({"x": [1.0, 1.0]})
    infinite = Fleet("sum(x, 2) > 0", 2)
    infinite.update({"x": [math.inf, 0]})
    with pytest.raises(DataError, match="no value"):
        infinite.update({"x": [-math.inf, 0]})
