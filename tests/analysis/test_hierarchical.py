"""The bootstrap over seeds and episodes against all resamples enumerated, closed forms and its coverage."""

import time
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from phalanx.analysis import hierarchical as module
from phalanx.analysis.hierarchical import (
    ACROSS,
    TwoLevel,
    hierarchical_difference,
    hierarchical_interval,
    hierarchical_summary,
    normalised_score,
)
from phalanx.errors import DataError, UsageError

TINY = np.array([[0.33, -1.32, 0.87], [-0.2, 0.12, 2.1]])
WEIGHT = np.array([1.0, 0.5, 2.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def drawn(values, *, crossed: bool, resamples: int = 20_000, **options) -> np.ndarray:
    """Means of each resample and drawn seed, as the statistic sees them."""
    seen: list[np.ndarray] = []

    def record(sums) -> np.ndarray:
        seen.append(sums["value"] / sums["weight"])
        return seen[-1]

    plan = TwoLevel(crossed=crossed, across="mean", resamples=resamples)
    hierarchical_interval(values, record, plan=plan, **options)
    return np.concatenate(seen)


def enumerated(values: np.ndarray, weight: np.ndarray, *, crossed: bool) -> np.ndarray:
    """The mean over seeds in every resample there is, each equally likely."""
    n_seeds, n = values.shape
    draws = list(product(range(n), repeat=n))
    found = []
    for picks in product(range(n_seeds), repeat=n_seeds):
        for lots in [(one,) * n_seeds for one in draws] if crossed else product(draws, repeat=n_seeds):
            each = []
            for seed, lot in zip(picks, lots, strict=True):
                whole = sum(weight[e] for e in lot)
                each.append(sum(weight[e] * values[seed, e] for e in lot) / whole)
            found.append(np.mean(each))
    return np.array(found)


def gap(sample: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference of the two distribution functions, looked at between their jumps."""
    jumps = np.unique(exact.round(9))
    at = (jumps[1:] + jumps[:-1]) / 2
    shares = [np.searchsorted(np.sort(values), at) / len(values) for values in (sample, exact)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("crossed", [True, False])
def test_resamples_are_distributed_as_all_that_there_are(crossed: bool) -> None:
    found = drawn(TINY, crossed=crossed, weight=WEIGHT).mean(axis=1)
    exact = enumerated(TINY, WEIGHT, crossed=crossed)
    assert gap(found, exact) < 0.015  # four deviations of an empirical distribution function of 20,000
    assert gap(found, enumerated(TINY, WEIGHT, crossed=not crossed)) > 0.03


def test_interval_is_that_of_all_resamples(rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 4))
    exact = enumerated(values, np.ones(4), crossed=True)
    plan = TwoLevel(across="mean", level=0.8, resamples=40_000)
    assert hierarchical_interval(values, plan=plan) == pytest.approx(np.quantile(exact, [0.1, 0.9]), abs=0.02)


@pytest.mark.parametrize("crossed", [True, False])
def test_seeds_without_scatter_leave_the_bootstrap_of_episodes(
    rng: np.random.Generator, crossed: bool
) -> None:
    episodes = rng.normal(size=50)
    means = drawn(np.tile(episodes, (4, 1)), crossed=crossed)
    # crossed, all seeds meet the same draw; nested, four draws are averaged
    expected = episodes.std() / np.sqrt(50 if crossed else 200)
    assert means.mean(axis=1).std() == pytest.approx(expected, rel=0.03)
    assert (np.ptp(means, axis=1) < 1e-12).all() == crossed


@pytest.mark.parametrize("crossed", [True, False])
def test_episodes_without_scatter_leave_the_bootstrap_of_seeds(
    rng: np.random.Generator, crossed: bool
) -> None:
    seeds = rng.normal(size=8)
    means = drawn(np.tile(seeds[:, None], (1, 30)), crossed=crossed).mean(axis=1)
    assert means.std() == pytest.approx(seeds.std() / np.sqrt(8), rel=0.03)


def test_strata_are_resampled_within_themselves() -> None:
    values, strata = np.array([[0.0, 0.0, 0.0, 1.0]]), ["peace", "peace", "peace", "attack"]
    plan = TwoLevel(across="mean")
    assert hierarchical_interval(values, strata=strata, weight=[1, 1, 1, 3], plan=plan) == (0.5, 0.5)
    low, high = hierarchical_interval(values, weight=[1, 1, 1, 3], plan=plan)
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("across", "expected"),
    [
        ("mean", lambda loss, allow: np.mean([1 - row.sum() / allow.sum() for row in loss])),
        ("iqm", lambda loss, allow: trim_mean([1 - row.sum() / allow.sum() for row in loss], 0.25)),
        ("pooled", lambda loss, allow: 1 - loss.sum() / (len(loss) * allow.sum())),
    ],
)
def test_summary_of_a_normalised_score(rng: np.random.Generator, across: str, expected) -> None:
    loss, allow = rng.gamma(1.0, 1.0, (6, 40)), rng.gamma(1.0, 4.0, 40)
    found = hierarchical_summary(
        {"loss": loss, "allow": allow, "oracle": np.zeros(40)}, normalised_score, plan=TwoLevel(across=across)
    )
    each = [1 - row.sum() / allow.sum() for row in loss]
    assert found["value"] == pytest.approx(expected(loss, allow))
    assert found["low"] < found["value"] < found["high"]
    assert found["mean"] == pytest.approx(np.mean(each))
    assert found["iqm"] == pytest.approx(trim_mean(each, 0.25))
    assert found["min"] == pytest.approx(min(each))
    assert (found["n"], found["missing"], found["undefined"]) == (6, 0, 0)


def test_pooling_is_not_averaging() -> None:
    values = {"value": [[1.0, 1.0], [0.0, 6.0]], "whole": [[1.0, 1.0], [8.0, 4.0]]}

    def share(sums) -> np.ndarray:
        return sums["value"] / sums["whole"]

    assert hierarchical_summary(values, share, plan=TwoLevel(across="pooled"))["value"] == 8 / 14
    assert hierarchical_summary(values, share, plan=TwoLevel(across="mean"))["value"] == (1.0 + 0.5) / 2


def test_paired_resamples_cancel_what_is_shared(rng: np.random.Generator) -> None:
    seeds, episodes = rng.normal(scale=5.0, size=(10, 1)), rng.normal(scale=5.0, size=(1, 100))
    before = seeds + episodes
    after = before + 1.0 + rng.normal(scale=0.1, size=before.shape)
    for crossed in (True, False):
        plan = TwoLevel(crossed=crossed)
        gain = hierarchical_difference(before, after, plan=plan)
        assert 0.97 < gain["low"] < 1.0 < gain["high"] < 1.03
        low, high = hierarchical_interval(before, plan=plan)
        assert high - low > 2.0
    least = (after - before).mean(axis=1).min()
    assert hierarchical_difference(before, after)["min"] == pytest.approx(least)


def test_a_difference_is_the_interval_of_differences(rng: np.random.Generator) -> None:
    before, after = rng.normal(size=(5, 20)), rng.normal(size=(5, 20))
    found = hierarchical_difference(before, after)
    assert (found["low"], found["high"]) == pytest.approx(hierarchical_interval(after - before))


def test_a_policy_without_seeds_is_compared_with_every_seed(rng: np.random.Generator) -> None:
    fixed, learned = rng.normal(size=20), rng.normal(size=(5, 20))
    found = hierarchical_difference(fixed, learned)
    assert found["n"] == 5
    assert found["mean"] == pytest.approx(learned.mean() - fixed.mean())


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(ACROSS)), st.booleans())
def test_interval_moves_and_scales_with_the_values(seed: int, across: str, crossed: bool) -> None:
    values = np.random.default_rng(seed).normal(size=(4, 7))
    plan = TwoLevel(crossed=crossed, across=across, resamples=100)
    low, high = hierarchical_interval(values, plan=plan)
    assert values.min() <= low <= high <= values.max()
    assert hierarchical_interval(3.0 * values + 2.0, plan=plan) == pytest.approx((3 * low + 2, 3 * high + 2))
    assert hierarchical_interval(values, weight=np.full(7, 4.0), plan=plan) == pytest.approx((low, high))


def test_same_seed_same_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 20))
    first, again, other = (hierarchical_interval(values, plan=TwoLevel(seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("crossed", [True, False])
def test_chunks_keep_every_resample(monkeypatch: pytest.MonkeyPatch, crossed: bool) -> None:
    monkeypatch.setattr(module, "_CHUNK", 300)
    sizes: list[int] = []

    def record(sums) -> np.ndarray:
        sizes.append(len(sums["value"]))
        return sums["value"]

    hierarchical_interval(np.zeros((3, 10)), record, plan=TwoLevel(crossed=crossed, resamples=101))
    assert sum(sizes) == 101
    assert max(sizes) * 10 * (1 if crossed else 3) <= 300


@pytest.mark.parametrize("crossed", [True, False])
def test_ten_seeds_of_a_thousand_episodes_take_seconds_and_little_memory(
    rng: np.random.Generator, crossed: bool
) -> None:
    values = rng.normal(size=(10, 1_000))
    tracemalloc.start()
    begun = time.perf_counter()
    hierarchical_interval(values, plan=TwoLevel(crossed=crossed, resamples=2_000))
    taken, (_, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 20.0
    assert peak < 80e6  # all nested counts at once would take 160 MB


@pytest.mark.parametrize(("across", "least", "most"), [("mean", 0.92, 0.98), ("iqm", 0.93, 0.995)])
def test_coverage_of_a_crossed_design(across: str, least: float, most: float) -> None:
    rng, hits = np.random.default_rng(2), []
    for i in range(400):
        values = 0.1 * rng.normal(size=(10, 1)) + rng.normal(size=(1, 200)) + rng.normal(size=(10, 200))
        low, high = hierarchical_interval(values, plan=TwoLevel(across=across, resamples=300, seed=i))
        hits.append(low <= 0.0 <= high)
    assert least <= np.mean(hits) <= most


def test_seeds_as_replicates_of_episodes_would_claim_too_much() -> None:
    rng, hits = np.random.default_rng(3), []
    for i in range(200):
        values = 0.1 * rng.normal(size=(10, 1)) + rng.normal(size=(1, 200)) + rng.normal(size=(10, 200))
        plan = TwoLevel(crossed=False, across="mean", resamples=200, seed=i)
        low, high = hierarchical_interval(values, plan=plan)
        hits.append(low <= 0.0 <= high)
    assert np.mean(hits) < 0.88  # nested resampling of crossed data: why the plan must say which it is


def test_undefined_seeds_and_resamples_are_counted() -> None:
    attacked = np.array([1.0, 0.0, 0.0, 0.0])
    values = {
        "loss": np.zeros(4),
        "allow": np.stack([attacked, 2 * attacked, 0 * attacked]),
        "oracle": np.zeros(4),
    }
    found = hierarchical_summary(values, normalised_score)
    assert (found["n"], found["missing"], found["value"]) == (2, 1, 1.0)
    # the one attacked episode is missed with probability (3/4)^4
    assert found["undefined"] / 2_000 == pytest.approx(0.75**4, abs=0.05)
    nothing = hierarchical_summary({name: np.zeros((2, 4)) for name in values}, normalised_score)
    assert nothing["low"] is nothing["value"] is None
    assert (nothing["n"], nothing["missing"]) == (0, 2)


def test_an_undefined_seed_is_not_trimmed_away() -> None:
    # of eight seeds two are cut from each end: a NaN, sorted to the end, would vanish
    sums = {"value": np.array([[1.0] * 7 + [np.nan], [1.0] * 8])}
    joined = ACROSS["iqm"](lambda sums: sums["value"], sums)
    assert np.isnan(joined[0]) and joined[1] == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hierarchical_interval({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}), DataError, "shapes"),
        (lambda: hierarchical_interval({"a": np.zeros((2, 3)), "b": np.zeros(4)}), DataError, "shapes"),
        (lambda: hierarchical_interval(np.zeros((2, 3, 4))), DataError, "shapes"),
        (lambda: hierarchical_interval(np.zeros((2, 0))), DataError, "shapes"),
        (lambda: hierarchical_interval({}), DataError, "shapes"),
        (
            lambda: hierarchical_interval([[0.0, np.nan]]),
            DataError,
            r"value=nan at seed and episode \(0, 1\)",
        ),
        (lambda: hierarchical_interval({"weight": [1.0]}), UsageError, "'weight'"),
        (lambda: hierarchical_interval([1.0, 2.0], weight=[1.0]), DataError, "each of 2 rows"),
        (lambda: hierarchical_interval([1.0, 2.0], weight=[0.0, 0.0]), DataError, "above 0"),
        (lambda: hierarchical_interval([1.0, 2.0], strata=["a"]), DataError, "2 episodes"),
        (
            lambda: hierarchical_interval([0.0], lambda s: s["value"] / s["value"]),
            DataError,
            "undefined in all",
        ),
        (lambda: hierarchical_difference(np.zeros((2, 3)), np.zeros((3, 3))), DataError, "before/value"),
        (lambda: TwoLevel(across="median"), UsageError, "iqm, mean, pooled"),
        (lambda: TwoLevel(level=95), UsageError, "level=95"),
        (lambda: TwoLevel(resamples=0), UsageError, "resamples=0"),
    ],
)
def test_bad_arguments_are_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
