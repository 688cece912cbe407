"""Agreement, correlated errors and abstention of a committee against SciPy and hand-counted cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from phalanx.analysis.diversity import committee_metrics
from phalanx.errors import DataError


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


@pytest.mark.parametrize(
    ("votes", "message"), [([0, 1], "expected two"), ([[0, 9]], r"vote=9 at row \(0, 1\)")]
)
def test_bad_votes_name_their_place(votes: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        committee_metrics(votes)
