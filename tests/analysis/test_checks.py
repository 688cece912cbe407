"""The checks that metrics share: what passes comes out unchanged, what does not is named with its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.analysis.checks import POSITIVE, ratio, same_length, severity, weights, whole_numbers
from phalanx.errors import DataError, UsageError


@given(st.lists(st.integers(-1, 3), max_size=20))
def test_whole_numbers_pass_whatever_their_type(values: list[int]) -> None:
    for kind in (np.int8, np.float32, np.float64):
        found = whole_numbers("verdict", np.array(values, kind), -1, 3)
        assert found.dtype == np.int64 and found.tolist() == values


@pytest.mark.parametrize("bad", [-2.0, 4.0, 0.5, float("nan"), float("inf")])
def test_the_first_bad_number_is_named(bad: float) -> None:
    with pytest.raises(
        DataError, match=rf"verdict={bad} at row \(1, 0\); expected a whole number from -1 to 3"
    ):
        whole_numbers("verdict", [[0.0, 1.0], [bad, bad]], -1, 3)


def test_a_ratio_needs_a_whole() -> None:
    assert (ratio(1, 2), ratio(0, 2), ratio(1, 0), ratio(1, -1)) == (0.5, 0.0, None, None)


def test_severities_are_those_of_the_verdicts() -> None:
    assert {name: severity(name) for name in POSITIVE} == {"alert": 1, "restrict": 2}
    with pytest.raises(UsageError, match="alert, restrict"):
        severity("allow")


def test_columns_of_different_length_are_listed() -> None:
    same_length(a=np.zeros(3), b=np.zeros((3, 2)))
    with pytest.raises(DataError, match="a has 3, b has 2"):
        same_length(a=np.zeros(3), b=np.zeros(2))


def test_weights_are_one_each_unless_given() -> None:
    assert weights(None, 3).tolist() == [1.0, 1.0, 1.0]
    assert weights([0, 2], 2).tolist() == [0.0, 2.0]
    for bad in ([1.0, -1.0], [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(DataError, match="at row 1"):
            weights(bad, 2)
    with pytest.raises(DataError, match="each of 2 rows"):
        weights([[1.0, 1.0]], 2)
