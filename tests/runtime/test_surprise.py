"""Surprise by counting, and Page's sum by a plain loop."""

import math
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.streams import drive, stream

from phalanx.errors import UsageError
from phalanx.runtime.surprise import CusumFamily, CusumPolicy, SurpriseFamily, SurprisePolicy, fit_surprise
from phalanx.runtime.vocabulary import Vocabulary

SIZES = (4, 3, 5)
VOCABULARY = Vocabulary(
    places={"kind": 0, "path": 1, "command": 2},
    values={"kind": ("",) * 4, "path": ("",) * 3, "command": ("",) * 5},
)


def test_surprise_is_minus_log_of_smoothed_shares() -> None:
    seen = stream(SIZES, 1, seed=3)
    live = np.random.default_rng(0).random(seen.label.shape) < 0.8
    weight = np.array([1.0, 2.0, 0.5])
    surprise, values = fit_surprise(VOCABULARY, seen._replace(live=live), weight, smoothing=0.3)
    both: Counter[tuple[int, ...]] = Counter()
    alone: Counter[int] = Counter()
    for t, env in zip(*np.nonzero(live), strict=True):
        kind, path, command = seen.category[t, env].tolist()
        both[kind, path, command] += weight[env]  # type: ignore[assignment]
        alone[command] += weight[env]  # type: ignore[assignment]

    def expected(kind: int, path: int, command: int) -> float:
        return -math.log((both[kind, path, command] + 0.3) / (alone[command] + 0.3 * 12))

    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SIZES), indexing="ij"), axis=-1).reshape(-1, 3)
    wanted = [expected(*row) for row in grid.tolist()]
    np.testing.assert_allclose(surprise(jnp.asarray(grid)), wanted, rtol=1e-6)
    by_event = [expected(*seen.category[t, env].tolist()) for t, env in zip(*np.nonzero(live), strict=True)]
    np.testing.assert_allclose(values, by_event, rtol=1e-6)
    per_command = np.exp(-np.asarray(surprise.table)).sum(axis=1)
    np.testing.assert_allclose(per_command, 1.0, rtol=1e-5, err_msg="a distribution for each command")


def test_surprise_does_without_a_command_but_not_without_outcomes() -> None:
    seen = stream((4,), 1)
    only = Vocabulary(places={"kind": 0}, values={"kind": ("",) * 4})
    surprise, _ = fit_surprise(only, seen, np.ones(3), smoothing=1.0)
    counts = np.bincount(seen.category.ravel(), minlength=4)
    np.testing.assert_allclose(surprise.table[0], -np.log((counts + 1) / (counts.sum() + 4)), rtol=1e-6)
    with pytest.raises(UsageError, match="kind, path"):
        fit_surprise(Vocabulary(), seen, np.ones(3))


def test_a_threshold_answers_what_is_as_surprising() -> None:
    seen = stream(SIZES, 1, seed=1)
    surprise, values = fit_surprise(VOCABULARY, seen, np.ones(3))
    cut = float(np.float32(np.quantile(values, 0.8)))
    policy = SurprisePolicy(surprise, jnp.full(3, cut), jnp.asarray([1, 2, 3], jnp.int32), None)
    answers, suspicion = drive(policy, seen)
    assert 0 < (answers > 0).mean() < 1
    np.testing.assert_array_equal(answers, np.where(suspicion >= np.float32(cut), [1, 2, 3], 0))


@given(st.integers(0, 10**6), st.floats(0.0, 3.0), st.floats(0.1, 8.0))
def test_cusum_is_page_s_loop(seed: int, drift: float, threshold: float) -> None:
    seen = stream(SIZES, 1, seed=seed)
    surprise, _ = fit_surprise(VOCABULARY, seen, np.ones(3))
    k, h = np.float32(drift), np.float32(threshold)
    policy = CusumPolicy(surprise, jnp.full(3, k), jnp.full(3, h), jnp.full(3, 2, jnp.int32), 4, None)
    answers, suspicion = drive(policy, seen)
    table = np.asarray(surprise.table)
    for env in range(3):
        sums: dict[int, np.float32] = {}
        for t in range(len(seen.label)):
            kind, path, command = seen.category[t, env]
            source = int(seen.source[t, env])
            before = sums.get(source, np.float32(0)) if source >= 0 else np.float32(0)
            total = max(np.float32(before + table[command, kind * 3 + path] - k), np.float32(0))
            assert suspicion[t, env] == pytest.approx(total, rel=1e-4, abs=1e-4)
            total = suspicion[t, env]  # go on from the same float, so that a tie at the threshold stays one
            assert answers[t, env] == (2 if total >= h else 0)
            sums[int(seen.entity[t, env])] = np.float32(0) if total >= h else total


def test_settings_are_quantiles_and_standard_deviations() -> None:
    seen = stream(SIZES, 1, seed=5)
    surprise, values = fit_surprise(VOCABULARY, seen, np.ones(3))
    one = SurpriseFamily(surprise, values, None)
    setting = {"rarity": 1.0, "answer": "block"}
    policy = one.build([setting], 2)
    assert np.asarray(policy.threshold) == pytest.approx(np.quantile(values, 0.9)) and policy.verdict[0] == 2
    assert one.explain(setting)["threshold"] == pytest.approx(np.quantile(values, 0.9))
    summed = CusumFamily(surprise, values, 4, None).build(
        [{"drift": 2.0, "threshold": 3.0, "answer": "alert"}], 1
    )
    assert float(summed.drift[0]) == pytest.approx(values.mean() + 2 * values.std(), rel=1e-6)
    assert float(summed.threshold[0]) == pytest.approx(3 * values.std(), rel=1e-6)
