"""Playbooks by plain loops; the classifier under them has an oracle of its own in scikit-learn."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.streams import drive, stream

from phalanx.analysis.probe import Probe
from phalanx.runtime.playbook import (
    EvidenceFamily,
    EvidencePolicy,
    Forest,
    PlaybookFamily,
    PlaybookPolicy,
    fit_forest,
)
from phalanx.runtime.playbook import log_odds as odds_of


def score(category: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-3.0 * numeric[:, 0]))


def odds(seen: Any) -> np.ndarray:
    return np.vectorize(lambda p: math.log(p / (1 - p)))(
        np.clip(1 / (1 + np.exp(-3.0 * seen.numeric[..., 0])), 1e-6, 1 - 1e-6)
    )


def verdict(value: float, limits: tuple[float, float, float]) -> int:
    return max((i + 1 for i, limit in enumerate(limits) if value >= limit), default=0)


def test_the_severest_threshold_that_is_reached_answers() -> None:
    seen = stream((3,), 2, seed=1)
    rows = np.array([[-1.0, 1.0, 3.0], [0.0, np.inf, 2.0], [np.inf, np.inf, np.inf]], np.float32)
    answers, suspicion = drive(PlaybookPolicy(score, rows, ticket_open=None), seen)
    expected = [[verdict(odds(seen)[t, e], tuple(rows[e])) for e in range(3)] for t in range(len(seen.label))]
    np.testing.assert_allclose(suspicion, odds(seen), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(answers, expected)
    assert set(np.unique(answers)) == {0, 1, 2, 3}


@given(st.integers(0, 10**6), st.floats(0.3, 1.0), st.floats(-2.0, 2.0))
def test_evidence_adds_up_along_a_process_and_its_children(seed: int, keep: float, drift: float) -> None:
    seen = stream((3,), 2, seed=seed)
    rows = np.tile(np.array([0.5, 2.0, 6.0], np.float32), (3, 1))
    g, k = np.full(3, keep, np.float32), np.full(3, drift, np.float32)
    policy = EvidencePolicy(score, rows, keep=g, drift=k, n_entities=4, ticket_open=None)
    answers, suspicion = drive(policy, seen)
    single = odds(seen)
    for env in range(3):
        kept: dict[int, float] = {}
        for t in range(len(seen.label)):
            source = int(seen.source[t, env])
            before = kept.get(source, 0.0) if source >= 0 else 0.0
            evidence = max(keep * before + single[t, env] - drift, 0.0)
            assert suspicion[t, env] == pytest.approx(evidence, rel=1e-3, abs=1e-3)
            assert answers[t, env] == verdict(float(suspicion[t, env]), (0.5, 2.0, 6.0))
            kept[int(seen.entity[t, env])] = float(suspicion[t, env])


def test_settings_set_rarer_scores_for_severer_answers() -> None:
    values = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    values[400:, 0] = np.nan
    nobody = np.zeros((500, 4), int)
    family = PlaybookFamily(Forest(Probe((), None), values, nobody, nobody), ticket_open=None)
    setting = {"answers": "alert quarantine", "first": 2.0, "second": 3.0, "third": 1.0}
    known = values[np.isfinite(values)]
    told = family.explain(setting)
    assert told == {
        "alert": pytest.approx(np.quantile(known, 0.9)),
        "quarantine": pytest.approx(np.quantile(known, 0.99)),
    }


def test_a_forest_scores_episodes_that_it_did_not_learn_from() -> None:
    seen = stream((3,), 2, steps=60, envs=10, seed=4)
    seen = seen._replace(label=(seen.numeric[..., 0] > 0).astype(np.int8))
    live = np.ones_like(seen.live)
    live[50:, 4] = False
    forest = fit_forest(seen._replace(live=live), seed=0)
    assert forest.odds.shape == (60, 2) and np.isnan(forest.odds[50:, 0]).all()
    known = np.isfinite(forest.odds)
    right = (forest.odds > 0) == (seen.label[:, [4, 9]] == 1)
    assert right[known].mean() > 0.95
    told = odds_of(forest.probe.score(seen.category[:, 9], seen.numeric[:, 9]))
    np.testing.assert_allclose(forest.odds[:, 1], told, rtol=1e-6)

    family = EvidenceFamily(forest, 4, None)
    setting = {"answers": "block", "first": 1.0, "second": 2.0, "third": 3.0, "half_life": 4.0, "drift": -0.5}
    policy = family.build([setting], 3)
    assert policy.keep[0] == pytest.approx(0.5**0.25) and np.isinf(policy.thresholds[0, [0, 2]]).all()
    alone = EvidencePolicy(
        forest.probe.score, np.full((10, 3), np.inf, np.float32), np.full(10, 0.5**0.25, np.float32),
        np.full(10, -0.5, np.float32), 4, None,
    )  # fmt: skip
    evidence = drive(alone, seen)[1][:, [4, 9]][known]
    assert policy.thresholds[0, 1] == pytest.approx(np.quantile(evidence, 0.9), rel=1e-3)
