"""Explained variance against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from phalanx.analysis.critic import explained_variance
from phalanx.errors import DataError


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


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="expected the same"):
        explained_variance([1.0], [1.0, 2.0])
