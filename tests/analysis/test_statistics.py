"""Interquartile mean and bootstrap intervals against SciPy and by their coverage on synthetic data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, trim_mean

from phalanx.analysis.statistics import bootstrap_interval, interquartile_mean, paired_difference, summary
from phalanx.errors import DataError, UsageError

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(numbers)
def test_interquartile_mean_equals_scipy(values: list[float]) -> None:
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_interquartile_mean_along_an_axis() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    assert interquartile_mean(values, axis=0) == pytest.approx(trim_mean(values, 0.25, axis=0))


def test_one_outlier_does_not_move_it() -> None:
    assert interquartile_mean([1.0, 1.0, 1.0, 1.0, -1e9]) == 1.0


def test_interval_equals_scipy() -> None:
    values = np.random.default_rng(1).normal(size=12)
    found = bootstrap_interval(values, lambda resampled: resampled.mean(axis=1), resamples=40_000)
    expected = bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=2
    ).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.02)


@pytest.mark.parametrize(("n", "least"), [(10, 0.88), (30, 0.90)])
def test_coverage(n: int, least: float) -> None:
    rng = np.random.default_rng(n)
    hits = [
        low <= 0.0 <= high
        for low, high in (bootstrap_interval(rng.normal(size=n), resamples=400, seed=i) for i in range(400))
    ]
    assert least <= np.mean(hits) <= 0.99


def test_strata_are_resampled_within_themselves() -> None:
    values, strata = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], ["a"] * 3 + ["b"] * 3

    def mean(resampled: np.ndarray) -> np.ndarray:
        return resampled.mean(axis=1)

    assert bootstrap_interval(values, mean, strata=strata) == (0.5, 0.5)  # between strata nothing varies
    low, high = bootstrap_interval(values, mean)
    assert low < 0.5 < high


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), st.floats(-10, 10))
def test_interval_moves_with_the_values_and_holds_within_their_range(
    values: list[float], shift: float
) -> None:
    low, high = bootstrap_interval(values, resamples=200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    moved = bootstrap_interval(np.array(values) + shift, resamples=200)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.8]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3, resamples=50) != bootstrap_interval(
        values, seed=4, resamples=50
    )


def test_chunks_bound_the_memory_and_keep_every_resample() -> None:
    sizes: list[int] = []

    def count(resampled: np.ndarray) -> np.ndarray:
        sizes.append(len(resampled))
        return resampled.mean(axis=1)

    bootstrap_interval(np.zeros(300_000), count, resamples=20)
    assert sum(sizes) == 20 and max(sizes) < 20


def test_summary_counts_what_is_undefined() -> None:
    found = summary([0.5, None, 0.7, float("nan"), 0.9])
    assert (found["mean"], found["min"], found["n"], found["missing"]) == (pytest.approx(0.7), 0.5, 3, 2)
    assert found["low"] <= found["iqm"] <= found["high"]
    assert summary([None]) == {k: None for k in ("mean", "iqm", "low", "high", "min")} | {
        "n": 0,
        "missing": 1,
    }


def test_pairs_cancel_the_luck_of_a_seed() -> None:
    luck = np.random.default_rng(0).normal(scale=10.0, size=10)
    gain = paired_difference(luck, luck + 1.0)
    assert (gain["low"], gain["high"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert summary(luck)["high"] - summary(luck)["low"] > 5.0
    assert paired_difference([1.0, None, 1.0], [2.0, 5.0, None])["n"] == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: interquartile_mean([]),
        lambda: bootstrap_interval([]),
        lambda: bootstrap_interval([1.0, float("inf")]),
        lambda: bootstrap_interval([1.0, 2.0], strata=["a"]),
        lambda: paired_difference([1.0], [1.0, 2.0]),
    ],
)
def test_bad_data_is_refused(call) -> None:
    with pytest.raises(DataError, match="expected|at least"):
        call()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="level=95"):
        bootstrap_interval([1.0], level=95)
