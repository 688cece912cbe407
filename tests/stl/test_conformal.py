"""Conformal prediction: exact over exchangeable ranks, its law over resplits, and sound under a known shift."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phalanx.errors import DataError, UsageError
from phalanx.stl.conformal import (
    Calibration,
    calibrate,
    calibrate_scores,
    conformal_quantile,
    coverage,
    nonconformity,
    resplit_coverage,
    smallest_calibration,
)

INF = math.inf
LEVELS = st.sampled_from(
    [("0.05", "0"), ("0.1", "0"), ("0.2", "0"), ("0.1", "0.05"), ("0.3", "0.2"), ("0.9", "0.1")]
)


def _left_out(scores: list[float], delta: float, shift: float, draw: float | None = None) -> Fraction:
    """Share of scores within the quantile of all others: what exchangeability averages over."""
    inside = sum(
        score <= conformal_quantile(scores[:i] + scores[i + 1 :], delta, shift, draw)
        for i, score in enumerate(scores)
    )
    return Fraction(inside, len(scores))


@given(LEVELS, st.integers(1, 45), st.randoms(use_true_random=False))
def test_coverage_over_ranks_is_the_least_multiple_that_suffices(
    level: tuple[str, str], n: int, rng: random.Random
) -> None:
    wanted = 1 - Fraction(level[0]) + Fraction(level[1])
    scores = [float(value) for value in range(n + 1)]
    rng.shuffle(scores)
    covered = _left_out(scores, float(level[0]), float(level[1]))
    assert wanted <= covered < wanted + Fraction(1, n + 1)


@given(LEVELS, st.lists(st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0, INF]), min_size=2, max_size=30))
def test_ties_only_raise_coverage(level: tuple[str, str], scores: list[float]) -> None:
    wanted = 1 - Fraction(level[0]) + Fraction(level[1])
    assert _left_out(scores, float(level[0]), float(level[1])) >= wanted


@given(LEVELS, st.lists(st.integers(0, 4).map(float), min_size=2, max_size=12))
def test_ties_broken_at_random_cover_as_often_as_if_there_were_none(
    level: tuple[str, str], scores: list[float]
) -> None:
    delta, shift = float(level[0]), float(level[1])
    draws = [(i + 0.5) / 30 for i in range(30)]
    covered = sum(_left_out(scores, delta, shift, draw) for draw in draws) / len(draws)
    without = _left_out([float(value) for value in range(len(scores))], delta, shift)
    assert abs(covered - without) <= Fraction(1, 30)


@given(
    LEVELS,
    st.lists(st.floats(-9, 9), min_size=1, max_size=40),
    st.floats(0, 1, exclude_max=True),
)
def test_a_random_bound_is_never_above_the_other(
    level: tuple[str, str], scores: list[float], draw: float
) -> None:
    delta, shift = float(level[0]), float(level[1])
    assert conformal_quantile(scores, delta, shift, draw) <= conformal_quantile(scores, delta, shift)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_more_confidence_costs_more(
    scores: list[float], rng: random.Random
) -> None:
    found = [conformal_quantile(scores, delta) for delta in (0.05, 0.1, 0.2, 0.5)]
    assert found == sorted(found, reverse=True)
    rng.shuffle(scores)
    assert [conformal_quantile(scores, delta) for delta in (0.05, 0.1, 0.2, 0.5)] == found


@pytest.mark.parametrize(
    ("delta", "shift"), [(0.05, 0.0), (0.1, 0.0), (0.3, 0.2), (0.1, 0.05), (0.07, 0.004)]
)
def test_the_smallest_calibration_is_the_first_with_a_finite_bound(delta: float, shift: float) -> None:
    first = next(n for n in itertools.count(1) if conformal_quantile(np.zeros(n), delta, shift) < INF)
    assert smallest_calibration(delta, shift) == first
    assert conformal_quantile(np.zeros(first + 1), delta, shift) < INF


def test_decimals_count_as_written() -> None:
    # in floating point 20 * (1 - .1 + .05) and 10 * (1 - .3 + .2) lie above 19 and 9
    assert conformal_quantile(np.arange(19), 0.1, 0.05) == 18.0
    assert conformal_quantile(np.arange(9), 0.3, 0.2) == 8.0


def _worst_shift(rng: np.random.Generator, count: int, shift: float) -> np.ndarray:
    """The uniform law on [0, 1], whose least scores, of probability ``shift``, have moved above all others."""
    scores = rng.random(count)
    return np.where(scores < shift, 1.0 + scores, scores)


@pytest.mark.parametrize(("n", "delta", "shift"), [(39, 0.1, 0.05), (50, 0.2, 0.1), (200, 0.05, 0.02)])
def test_coverage_holds_under_the_worst_shift_of_a_known_distance(n: int, delta: float, shift: float) -> None:
    rng = np.random.default_rng(3)
    rounds = 1500
    covered = {"robust": 0.0, "one rank less": 0.0, "without the shift": 0.0}
    for _ in range(rounds):
        scores, fresh = np.sort(rng.random(n)), _worst_shift(rng, 50, shift)
        bound = conformal_quantile(scores, delta, shift)
        less = scores[np.searchsorted(scores, bound) - 1]
        for name, radius in zip(covered, (bound, less, conformal_quantile(scores, delta)), strict=True):
            covered[name] += float(np.mean(fresh <= radius)) / rounds
    rank = n + 1 - math.floor(Fraction(n + 1) * (Fraction(str(delta)) - Fraction(str(shift))))
    tolerance = 4 * math.sqrt(0.25 / (50 * rounds) + stats.beta(rank, n + 1 - rank).var() / rounds)
    assert covered["robust"] == pytest.approx(rank / (n + 1) - shift, abs=tolerance)
    assert covered["robust"] >= 1 - delta - tolerance
    assert rank / (n + 1) - shift >= 1 - delta - 1e-12 > (rank - 1) / (n + 1) - shift
    assert covered["without the shift"] < 1 - delta - tolerance


@pytest.mark.parametrize("delta", [0.05, 0.1, 0.2])
def test_resplits_follow_their_law_and_meet_the_goal(delta: float) -> None:
    rng = np.random.default_rng(11)
    actual = rng.standard_t(2, 256)
    found = resplit_coverage(actual + rng.standard_cauchy(256), actual, delta, calibration_n=128)
    rank = math.ceil(Fraction(129) * (1 - Fraction(str(delta))))
    law = stats.betabinom(128, rank, 129 - rank)
    assert found.mean == pytest.approx(law.mean() / 128, abs=4 * found.error)
    assert found.std == pytest.approx(law.std() / 128, rel=0.1)
    assert law.cdf(128 * found.least) * 1000 < 8  # one in three thousand
    assert 1 - delta <= found.mean <= 1 - delta + 0.02


def test_ties_lift_coverage_over_resplits_and_random_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    predicted, actual = rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    plain = resplit_coverage(predicted, actual, 0.2, 200, resplits=300)
    broken = resplit_coverage(predicted, actual, 0.2, 200, resplits=300, break_ties=True)
    assert plain.mean > 0.8 + 4 * plain.error
    assert broken.mean == pytest.approx(161 / 201, abs=4 * broken.error)


@given(
    st.lists(st.tuples(*[st.sampled_from([-INF, -2.0, 0.0, 1.5, INF])] * 2), min_size=1, max_size=25),
    st.sampled_from([-INF, -2.0, -1.0, 0.0, 1.0, 3.5, INF]),
)
def test_a_score_within_the_radius_keeps_the_lower_bound(
    episodes: list[tuple[float, float]], radius: float
) -> None:
    predicted, actual = np.array(episodes).T
    within = nonconformity(predicted, actual) <= radius
    lower = Calibration(radius, 9, 0.1).lower(predicted)
    assert not np.isnan(lower).any()
    assert (actual[within] >= lower[within]).all()


def test_infinite_robustness_is_a_value() -> None:
    scores = nonconformity([INF, INF, -INF, 1.0, 1.0, -INF], [INF, 2.0, -INF, INF, -INF, 0.0])
    assert scores.tolist() == [0.0, INF, 0.0, -INF, INF, -INF]
    assert coverage([INF, -INF, 1.0, -INF], [INF, -INF, INF, 0.0]) == 0.5


def test_verdicts_are_those_of_the_lower_bound() -> None:
    calibration = calibrate(np.arange(1.0, 40.0), np.zeros(39), delta=0.1)
    assert (calibration.radius, calibration.n, calibration.guaranteed) == (36.0, 39, 0.9)
    assert calibration.lower([40.0, 36.0, 30.0]).tolist() == [4.0, 0.0, -6.0]
    assert calibration.satisfied([40.0, 36.0, 30.0]).tolist() == [True, True, False]
    assert calibration.verdict([40.0, 30.0]).tolist() == ["will hold", "cannot say"]
    shifted = calibrate(np.arange(1.0, 40.0), np.zeros(39), delta=0.1, shift=0.05)
    assert (shifted.radius, shifted.guaranteed) == (38.0, 0.9)
    assert calibrate_scores(np.arange(30.0), 0.1).guaranteed == pytest.approx(28 / 31)


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: calibrate([1.0] * 18, [0.0] * 18, 0.05), DataError, "18 episodes.* needs 19 or more"),
        (lambda: calibrate([1.0] * 18, [0.0] * 18, 0.1, 0.05), DataError, "shift 0.05 needs 19 or more"),
        (lambda: calibrate([1.0, 2.0], [1.0], 0.5), DataError, "2 predicted and 1 actual"),
        (lambda: calibrate([[1.0], [2.0]], [[1.0], [2.0]], 0.5), DataError, "one value an episode.*2x1"),
        (lambda: calibrate([], [], 0.5), DataError, "one value an episode, at least one.*shape is 0"),
        (lambda: calibrate([1.0, math.nan], [1.0, 1.0], 0.5), DataError, "predicted: NaN at episode 1"),
        (lambda: calibrate([1.0, 1.0], [math.nan, 1.0], 0.5), DataError, "actual: NaN at episode 0"),
        (lambda: conformal_quantile(["a"], 0.5), DataError, "scores: expected numbers"),
        (lambda: conformal_quantile([1.0], 0.0), UsageError, "delta 0.0"),
        (lambda: conformal_quantile([1.0], 1.0), UsageError, "delta 1.0"),
        (lambda: conformal_quantile([1.0], math.nan), UsageError, "delta nan"),
        (lambda: conformal_quantile([1.0], 0.1, 0.1), UsageError, "no number of episodes"),
        (lambda: smallest_calibration(0.1, -0.1), UsageError, "shift -0.1"),
        (lambda: conformal_quantile([1.0], 0.1, 0.0, 1.0), UsageError, "tie_break 1.0"),
        (lambda: resplit_coverage([1.0] * 20, [1.0] * 20, 0.1, 20), DataError, "leave none to test"),
        (lambda: resplit_coverage([1.0] * 20, [1.0] * 20, 0.1, 8), DataError, "8 episodes.*needs 9"),
        (lambda: resplit_coverage([1.0] * 20, [1.0] * 20, 0.1, 9, 1), UsageError, "resplits 1"),
    ],
)
def test_what_cannot_be_calibrated_is_told(call, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        call()
