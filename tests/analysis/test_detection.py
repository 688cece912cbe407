"""Detection metrics against scikit-learn and hand-counted cases, with and without weights."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from phalanx.analysis.detection import (
    average_precision,
    base_rate_weights,
    best_threshold,
    detection_metrics,
)
from phalanx.errors import DataError, UsageError

events = st.lists(
    st.tuples(st.integers(-1, 1), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40
).map(lambda rows: np.array(rows).T)


QUIET: dict[str, Any] = {"zero_division": 0.0}


def both_classes(label: np.ndarray) -> bool:
    return bool((label == 1).any() and (label == 0).any())


@given(events.filter(lambda rows: both_classes(rows[0])), st.sampled_from(["alert", "restrict"]))
def test_detection_equals_scikit_learn(rows: np.ndarray, positive: str) -> None:
    label, verdict, score = rows
    found = detection_metrics(label, verdict, score / 4, positive=positive)
    known = label >= 0
    truth, flagged = label[known], verdict[known] >= {"alert": 1, "restrict": 2}[positive]
    assert [[found.tn, found.fp], [found.fn, found.tp]] == oracle.confusion_matrix(
        truth, flagged, labels=[0, 1]
    ).tolist()
    assert found.precision == pytest.approx(oracle.precision_score(truth, flagged, **QUIET))
    assert found.recall == pytest.approx(oracle.recall_score(truth, flagged))
    assert found.f1 == pytest.approx(oracle.f1_score(truth, flagged, **QUIET))
    assert found.mcc == pytest.approx(oracle.matthews_corrcoef(truth, flagged))
    assert found.pr_auc == pytest.approx(oracle.average_precision_score(truth, score[known]))
    assert found.base_rate == pytest.approx(truth.mean())
    assert found.unknown == (~known).sum()


def test_allowing_everything_scores_zero_not_undefined() -> None:
    found = detection_metrics([1, 0, 0], [0, 0, 0], [0.1, 0.1, 0.1])
    assert (found.precision, found.recall, found.f1, found.mcc) == (0.0, 0.0, 0.0, 0.0)
    assert found.pr_auc == pytest.approx(1 / 3)  # a constant score has the base rate


@pytest.mark.parametrize("verdict", [[0, 0], [0, 3]])
def test_without_malicious_events_nothing_is_claimed(verdict: list[int]) -> None:
    found = detection_metrics([0, 0], verdict, [0.2, 0.9])
    assert (found.recall, found.f1, found.mcc, found.pr_auc) == (None, None, None, None)
    assert found.precision == (0.0 if max(verdict) else None)
    assert found.base_rate == 0.0


def test_only_unknown_labels() -> None:
    found = detection_metrics([-1, -1], [3, 0])
    assert (found.tp, found.fp, found.base_rate, found.unknown) == (0, 0, None, 2)


def test_alert_is_permissive_when_only_restrictions_count() -> None:
    assert detection_metrics([1, 1], [1, 2]).recall == 1.0
    assert detection_metrics([1, 1], [1, 2], positive="restrict").recall == 0.5


def test_mcc_of_very_many_events_does_not_overflow() -> None:
    label = np.repeat([0, 1], [3_000_000, 1_000_000])
    assert detection_metrics(label, label * 3).mcc == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detection_metrics([0, 7], [0, 0]), "label=7 at row 1"),
        (lambda: detection_metrics([0, 1], [0, 4]), "verdict=4 at row 1"),
        (lambda: detection_metrics([0, 1], [0]), "label has 2, verdict has 1"),
        (lambda: detection_metrics([0, 1], [0, 0], weight=[1.0]), r"weight has shape \(1,\)"),
        (lambda: average_precision([0, 1], [0.0, np.nan]), "score=nan"),
        (lambda: average_precision([0.0, np.nan], [0.0, 1.0]), "label=nan at row 1"),
        (lambda: average_precision([0, 1], [0.0, 1.0], [1.0, -1.0]), "weight=-1.0 at row 1"),
        (lambda: average_precision([0, 1], [0.0, 1.0], [np.inf, 1.0]), "weight=inf at row 0"),
        (lambda: best_threshold([0, -1], [0.0, 1.0]), "none of 1 known"),
        (lambda: base_rate_weights(0, 10, 10, 0.1), "malicious=0"),
        (lambda: base_rate_weights(5, 4, 10, 0.1), "malicious <= events"),
        (lambda: base_rate_weights(5, 10, 0, 0.1), "peaceful_events=0"),
    ],
)
def test_bad_data_names_its_place(call, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(UsageError, match="alert, restrict"):
        detection_metrics([0], [0], positive="block")
    with pytest.raises(UsageError, match="f1, mcc, balanced_accuracy"):
        best_threshold([1], [1.0], metric="accuracy")


ORACLES = {
    "f1": lambda truth, flagged: oracle.f1_score(truth, flagged, **QUIET),
    "mcc": oracle.matthews_corrcoef,
    "balanced_accuracy": oracle.balanced_accuracy_score,
}


@given(events.filter(lambda rows: both_classes(rows[0])), st.sampled_from(sorted(ORACLES)))
def test_best_threshold_equals_exhaustive_search(rows: np.ndarray, metric: str) -> None:
    label, _, score = rows
    known = label >= 0
    cuts = [np.inf, *sorted(set(score[known].tolist()), reverse=True)]
    values = [ORACLES[metric](label[known], score[known] >= cut) for cut in cuts]
    found = best_threshold(label, score, metric)
    assert found.value == pytest.approx(max(values))
    assert ORACLES[metric](label[known], score[known] >= found.threshold) == pytest.approx(max(values))


def test_best_threshold_prefers_fewer_alerts_among_equals() -> None:
    assert best_threshold([1, 0, 1], [0.9, 0.5, 0.1], "balanced_accuracy").threshold == 0.7


def test_a_score_that_is_off_by_rounding_does_not_cross_the_threshold() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.9], np.float32)
    threshold = best_threshold([0, 1, 1, 1], score).threshold
    for near in (np.nextafter(score, np.float32(0)), np.nextafter(score, np.float32(1))):
        np.testing.assert_array_equal(near >= threshold, [False, True, True, True])


weighted_events = st.lists(
    st.tuples(
        st.integers(-1, 1), st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 0.1, 0.5, 3.0])
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: np.array(rows).T)


@given(weighted_events)
def test_weighted_detection_equals_scikit_learn(rows: np.ndarray) -> None:
    label, verdict, score, weight = rows
    known = (label >= 0) & (weight > 0)
    assume(both_classes(label[known]))
    found = detection_metrics(label, verdict, score, weight=weight)
    truth, flagged, own = label[known], verdict[known] >= 1, {"sample_weight": weight[known]}
    assert found.precision == pytest.approx(oracle.precision_score(truth, flagged, **QUIET, **own))
    assert found.recall == pytest.approx(oracle.recall_score(truth, flagged, **own))
    assert found.f1 == pytest.approx(oracle.f1_score(truth, flagged, **QUIET, **own))
    assert found.mcc == pytest.approx(oracle.matthews_corrcoef(truth, flagged, **own), abs=1e-7)
    assert found.pr_auc == pytest.approx(oracle.average_precision_score(truth, score[known], **own))
    assert found.base_rate == pytest.approx(np.average(truth, weights=weight[known]))
    benign = truth == 0
    assert found.false_alarms_per_million == pytest.approx(
        1e6 * np.average(flagged[benign], weights=weight[known][benign])
    )
    plain = detection_metrics(label, verdict)
    assert (found.tp, found.tn, found.fp, found.fn) == (plain.tp, plain.tn, plain.fp, plain.fn)


@given(weighted_events, st.sampled_from(sorted(ORACLES)))
def test_best_weighted_threshold_equals_exhaustive_search(rows: np.ndarray, metric: str) -> None:
    label, _, score, weight = rows
    known = (label >= 0) & (weight > 0)
    assume(both_classes(label[known]))
    measures = {
        "f1": lambda flagged: oracle.f1_score(label[known], flagged, **QUIET, sample_weight=weight[known]),
        "mcc": lambda flagged: oracle.matthews_corrcoef(label[known], flagged, sample_weight=weight[known]),
        "balanced_accuracy": lambda flagged: oracle.balanced_accuracy_score(
            label[known], flagged, sample_weight=weight[known]
        ),
    }
    cuts = [np.inf, *sorted(set(score[known].tolist()), reverse=True)]
    values = [measures[metric](score[known] >= cut) for cut in cuts]
    found = best_threshold(label, score, metric, weight=weight)
    assert found.value == pytest.approx(max(values), abs=1e-7)
    assert measures[metric](score[known] >= found.threshold) == pytest.approx(max(values), abs=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_whole_weights_are_repeated_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, score, weight = rng.integers(-1, 2, 30), rng.integers(0, 6, 30) / 6, rng.integers(0, 4, 30)
    weighted = average_precision(label, score, weight)
    repeated = average_precision(np.repeat(label, weight), np.repeat(score, weight))
    assert weighted == (None if repeated is None else pytest.approx(repeated))


def test_events_without_weight_are_no_events() -> None:
    found = detection_metrics([1, 0], [1, 1], [0.9, 0.8], weight=[0.0, 1.0])
    assert (found.recall, found.f1, found.pr_auc) == (None, None, None)
    assert (found.tp, found.fp, found.precision, found.base_rate) == (1, 1, 0.0, 0.0)


def test_false_alarms_per_million_benign_events() -> None:
    assert detection_metrics([0, 0, 0, 0, 1], [1, 0, 0, 0, 1]).false_alarms_per_million == 250_000.0
    assert detection_metrics([1], [1]).false_alarms_per_million is None


@given(
    st.integers(1, 500), st.integers(0, 5_000), st.integers(1, 10_000), st.floats(1e-6, 1.0, exclude_max=True)
)
def test_base_rate_weights_reach_the_rate(malicious: int, benign: int, peaceful: int, part: float) -> None:
    events = malicious + benign
    rate = part * malicious / events
    found = base_rate_weights(malicious, events, peaceful, rate)
    assert found.peaceful + found.attack == pytest.approx(1.0)
    assert min(found) >= 0.0
    reached = found.attack * malicious / (found.attack * events + found.peaceful * peaceful)
    assert reached == pytest.approx(rate, rel=1e-6)


def test_the_attack_stratum_alone_has_its_own_share() -> None:
    assert base_rate_weights(3, 30, 50, 0.1) == (0.0, 1.0)
    for rate in (0.1001, 0.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"at most 0\.1"):
            base_rate_weights(3, 30, 50, rate)


def test_precision_at_a_true_base_rate_is_that_of_a_sample_drawn_at_it() -> None:
    rng = np.random.default_rng(0)
    # peaceful events score lower than the benign ones beside an attack, so that the strata differ
    n_attack, n_peaceful = 4_000, 40_000
    label = np.concatenate([rng.random(n_attack) < 0.2, np.zeros(n_peaceful, bool)]).astype(int)
    attack = np.arange(len(label)) < n_attack
    score = rng.normal(size=len(label)) + 2.0 * label + 0.5 * attack
    shares = base_rate_weights(int(label.sum()), n_attack, n_peaceful, 0.01)
    found = detection_metrics(
        label, score > 2.0, score, weight=np.where(attack, shares.attack, shares.peaceful)
    )
    # the same world with the strata in their true proportion: thin out the attack stratum instead of weighing it
    kept = rng.random(len(label)) < np.where(attack, shares.attack / shares.peaceful, 1.0)
    thinned = detection_metrics(label[kept], score[kept] > 2.0, score[kept])
    assert found.base_rate == pytest.approx(0.01)
    assert thinned.base_rate == pytest.approx(0.01, rel=0.2)
    assert found.precision == pytest.approx(thinned.precision, rel=0.2)
    assert found.pr_auc == pytest.approx(thinned.pr_auc, rel=0.2)
    assert found.precision is not None
    assert found.precision < 0.8 * (label[score > 2.0].sum() / (score > 2.0).sum())
