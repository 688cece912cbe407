"""Detection, response and committee metrics against scikit-learn, SciPy and hand-counted cases."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as oracle

from phalanx.analysis.metrics import (
    average_precision,
    best_threshold,
    committee_metrics,
    detection_metrics,
    explained_variance,
    response_metrics,
)
from phalanx.errors import DataError, UsageError
from phalanx.types import Score

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
        (lambda: average_precision([0, 1], [0.0, np.nan]), "score=nan"),
        (lambda: average_precision([0.0, np.nan], [0.0, 1.0]), "label=nan at row 1"),
        (lambda: best_threshold([0, -1], [0.0, 1.0]), "none of 1 known"),
        (lambda: committee_metrics([0, 1]), "expected two"),
        (lambda: committee_metrics([[0, 9]]), r"vote=9 at row \(0, 1\)"),
        (lambda: explained_variance([1.0], [1.0, 2.0]), "expected the same"),
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
    assert values[cuts.index(found.threshold)] == pytest.approx(max(values))


def test_best_threshold_prefers_fewer_alerts_among_equals() -> None:
    assert best_threshold([1, 0, 1], [0.9, 0.5, 0.1], "balanced_accuracy").threshold == 0.9


def score_of(**totals: list[float]) -> Score:
    zero = dict.fromkeys(Score.__dataclass_fields__, jnp.zeros(2, jnp.float32))
    return Score(**{**zero, **{name: jnp.asarray(value, jnp.float32) for name, value in totals.items()}})


def test_response_counted_by_hand() -> None:
    policy = score_of(
        damage=[10.0, 20.0],
        benign=[600.0, 400.0],
        benign_lost=[3.0, 2.0],
        false_blocks=[1.0, 1.0],
        alerts=[2.0, 4.0],
        campaigns=[2.0, 1.0],
        contained=[2.0, 0.0],
        contain_s=[90.0, 0.0],
        duration_s=[3600.0, 3600.0],
    )
    found = response_metrics(policy, score_of(damage=[60.0, 60.0]), score_of(damage=[0.0, 20.0]))
    assert found.damage_prevented == pytest.approx(0.9)
    assert found.availability == pytest.approx(0.995)
    assert (found.time_to_contain_s, found.campaigns, found.censored) == (45.0, 3, 1)
    assert found.contained_share == pytest.approx(2 / 3)
    assert found.false_blocks_per_million == pytest.approx(2000.0)
    assert found.alerts_per_day == pytest.approx(72.0)


def test_response_anchors_and_undefined_values() -> None:
    allow, oracle_run = score_of(damage=[5.0, 5.0]), score_of(damage=[1.0, 1.0])
    assert response_metrics(allow, allow, oracle_run).damage_prevented == 0.0
    assert response_metrics(oracle_run, allow, oracle_run).damage_prevented == 1.0
    nothing = response_metrics(allow, allow, allow)
    assert nothing.damage_prevented is None
    assert (nothing.availability, nothing.time_to_contain_s, nothing.contained_share) == (None, None, None)
    assert (nothing.false_blocks_per_million, nothing.alerts_per_day) == (None, None)


@given(st.integers(0, 2**32 - 1))
def test_error_correlation_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes, label = rng.integers(-1, 4, (60, 3)), rng.integers(-1, 2, 60)
    values = []
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        both = (votes[:, i] >= 0) & (votes[:, j] >= 0) & (label >= 0)
        wrong = [(votes[both, m] >= 1) != (label[both] == 1) for m in (i, j)]
        values.append(pearsonr(*wrong)[0])
    assert committee_metrics(votes, label).error_correlation == pytest.approx(np.mean(values))


@given(st.integers(0, 2**32 - 1))
def test_committee_metrics_do_not_depend_on_the_order_of_members(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes, label = rng.integers(-1, 4, (30, 4)), rng.integers(0, 2, 30)
    one, other = committee_metrics(votes, label), committee_metrics(votes[:, ::-1], label)
    assert one.agreement == other.agreement and one.abstain == other.abstain
    assert one.error_correlation == pytest.approx(other.error_correlation)


def test_committee_counted_by_hand() -> None:
    found = committee_metrics([[0, 0], [1, 2], [-1, 3], [-1, -1]])
    assert found.agreement == pytest.approx(
        2 / 3
    )  # a lone vote agrees with itself, an empty event is left out
    assert found.abstain == pytest.approx(3 / 8)
    assert found.error_correlation is None


def test_members_without_errors_have_no_correlation() -> None:
    assert committee_metrics([[0, 0], [1, 0]], [0, 1]).error_correlation is None
    nothing = committee_metrics(np.zeros((0, 3), int), np.zeros(0, int))
    assert (nothing.agreement, nothing.abstain, nothing.error_correlation) == (None, None, None)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2).map(np.array))
def test_explained_variance_equals_scikit_learn(pairs: np.ndarray) -> None:
    values, targets = pairs.T
    found = explained_variance(values, targets)
    if np.ptp(targets) == 0:
        assert found is None
    elif np.var(targets) > 1e-12:
        assert found == pytest.approx(oracle.explained_variance_score(targets, values), rel=1e-6, abs=1e-6)


def test_explained_variance_of_a_constant_critic_is_zero() -> None:
    assert explained_variance(np.full(100, 3.0), np.arange(100.0)) == pytest.approx(0.0)
    assert explained_variance([1.0, np.nan], [1.0, 2.0]) is None
    assert explained_variance([], []) is None
