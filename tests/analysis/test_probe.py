"""The probes find what is there, and only that."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_info

from phalanx.analysis import probe as module
from phalanx.analysis.probe import evaluate_probe, fit_probe, regression_ceiling
from phalanx.errors import DataError

FAST = {"iterations": 15}


@dataclass
class Part:
    """Encoded rows."""

    category: np.ndarray
    numeric: np.ndarray
    label: np.ndarray


def rows(seed: int, n: int = 600, noise: float = 0.0) -> Part:
    """Malicious where a category is 3 and a number is positive."""
    rng = np.random.default_rng(seed)
    category, numeric = rng.integers(0, 6, (n, 2)), rng.normal(size=(n, 3))
    label = ((category[:, 0] == 3) & (numeric[:, 1] > 0)).astype(np.int8)
    label = np.where(rng.random(n) < noise, 1 - label, label)
    return Part(category, numeric, label)


def test_finds_a_rule_and_reports_the_test_part() -> None:
    test = rows(2)
    found = evaluate_probe(rows(0), rows(1), test, **FAST)
    assert found.detection.f1 is not None and found.detection.f1 > 0.95
    assert found.detection.tp + found.detection.fn == test.label.sum()
    probe = fit_probe(rows(0).category, rows(0).numeric, rows(0).label, **FAST)
    flagged = probe.score(test.category, test.numeric) >= found.threshold
    assert found.detection.f1 == pytest.approx(f1_score(test.label, flagged))


def test_finds_nothing_where_nothing_is() -> None:
    train, validation, test = (rows(seed) for seed in (0, 1, 2))
    rng = np.random.default_rng(3)
    for part in (train, validation, test):
        part.label = (rng.random(600) < 0.2).astype(np.int8)
    found = evaluate_probe(train, validation, test, **FAST).detection
    assert found.pr_auc is not None and found.mcc is not None
    assert found.pr_auc < 0.35 and abs(found.mcc) < 0.2


def test_labels_of_the_test_part_change_nothing_but_the_result() -> None:
    test = rows(2)
    before = evaluate_probe(rows(0), rows(1), test, **FAST)
    test.label = 1 - test.label
    after = evaluate_probe(rows(0), rows(1), test, **FAST)
    assert (before.threshold, before.validation_f1) == (after.threshold, after.validation_f1)
    assert before.detection.f1 != after.detection.f1


def test_unknown_labels_are_not_learned_from() -> None:
    train = rows(0)
    more = rows(5)
    label = np.concatenate([train.label, np.full(600, -1)])
    both = [np.concatenate([getattr(train, name), getattr(more, name)]) for name in ("category", "numeric")]
    one = fit_probe(train.category, train.numeric, train.label, **FAST)
    other = fit_probe(both[0], both[1], label, **FAST)
    assert (one.score(more.category, more.numeric) == other.score(more.category, more.numeric)).all()


def test_many_categories_and_unseen_ones() -> None:
    rng = np.random.default_rng(0)
    ids = np.where(rng.random(4000) < 0.5, 1, rng.integers(2, 2000, 4000))[:, None]
    label = (ids[:, 0] == 1).astype(int)
    probe = fit_probe(ids, np.zeros((4000, 1)), label, **FAST)
    score = probe.score(np.array([[1], [5000], [-1]]), np.zeros((3, 1)))
    assert score[0] > 0.5 > max(score[1], score[2])
    assert all(np.isnan(table).sum() + 254 >= table.size for table in probe.codes)


def test_without_categories() -> None:
    numeric = np.random.default_rng(0).normal(size=(300, 1))
    none = np.zeros((300, 0), int)
    probe = fit_probe(none, numeric, (numeric[:, 0] > 0).astype(int), **FAST)
    assert probe.score(none[:1], np.array([[2.0]]))[0] > 0.5


def test_threads_are_bounded_while_fitting_and_given_back() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"]

    fit_probe(rows(0).category, rows(0).numeric, rows(0).label, **FAST)  # loads OpenMP
    before = threads()
    with module._limited(1):
        assert threads() and set(threads()) == {1}
    assert threads() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros(600, int)}, r"\[0\]; expected both"),
        ({"label": np.zeros(5, int)}, "5 labels for 600 rows"),
    ],
)
def test_bad_rows_are_refused(change: dict, message: str) -> None:
    part = replace(rows(0), **change)
    with pytest.raises(DataError, match=message):
        fit_probe(part.category, part.numeric, part.label, **FAST)


def test_another_number_of_columns_is_refused() -> None:
    probe = fit_probe(rows(0).category, rows(0).numeric, rows(0).label, **FAST)
    with pytest.raises(DataError, match=r"expected \[row, 2\]"):
        probe.score(rows(0).category[:, :1], rows(0).numeric)


def test_ceiling_equals_the_variance_that_can_be_known() -> None:
    rng = np.random.default_rng(0)
    inputs, groups = rng.normal(size=(3000, 2)), np.repeat(np.arange(10), 300)
    returns = 2.0 * (inputs[:, 0] > 0) + rng.normal(size=3000)  # signal variance 1, noise variance 1
    assert regression_ceiling(inputs, returns, groups, iterations=30) == pytest.approx(0.5, abs=0.06)


def test_ceiling_uses_categories() -> None:
    rng = np.random.default_rng(0)
    category, groups = rng.integers(0, 8, (1000, 1)), np.repeat(np.arange(5), 200)
    returns = np.array([3, -1, 4, -1, 5, -9, 2, -6.0])[category[:, 0]]
    blank = np.zeros((1000, 1))
    seen = regression_ceiling(blank, returns, groups, category=category, iterations=50)
    unseen = regression_ceiling(blank, returns, groups, iterations=5)
    assert seen is not None and unseen is not None and seen > 0.95 and unseen < 0.01


def test_ceiling_is_not_fooled_by_returns_that_belong_to_one_environment() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 100)
    returns = rng.normal(size=8)[groups]
    inputs = groups[:, None] + 0.01 * rng.normal(size=(800, 1))  # tells the environment, and so its return
    found = regression_ceiling(inputs, returns, groups, iterations=30)
    assert found is not None and found < 0.5


def test_ceiling_edge_cases() -> None:
    inputs = np.zeros((10, 1))
    assert regression_ceiling(inputs, np.ones(10), np.arange(10)) is None
    with pytest.raises(DataError, match="at least 2"):
        regression_ceiling(inputs, np.arange(10.0), np.zeros(10))
    with pytest.raises(DataError, match="9 groups"):
        regression_ceiling(inputs, np.arange(10.0), np.arange(9))


def test_ceiling_takes_the_better_of_a_line_and_of_trees() -> None:
    """Forty weak linear causes: trees of 15 leaves find little of them, a ridge regression nearly all."""
    rng = np.random.default_rng(0)
    inputs, groups = rng.normal(size=(2000, 40)), np.repeat(np.arange(10), 200)
    returns = inputs.sum(axis=1) + rng.normal(size=2000)
    found = regression_ceiling(inputs, returns, groups, iterations=5)
    assert found is not None and found > 0.95  # of 40 / 41


def test_ceiling_is_not_lost_to_returns_with_heavy_tails() -> None:
    """One return in fifty is thirty times larger whatever the inputs: an unrestrained regression learns it by heart."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(1)
    inputs, groups = rng.normal(size=(3000, 8)), np.repeat(np.arange(10), 300)
    returns = np.sign(inputs[:, 0]) + 30 * rng.normal(size=3000) * (rng.random(3000) < 0.02)
    found = regression_ceiling(inputs, returns, groups)
    plain = HistGradientBoostingRegressor(random_state=0).fit(inputs[:1500], returns[:1500])
    residual = returns[1500:] - plain.predict(inputs[1500:])
    assert found is not None and found > 1 - residual.var() / returns[1500:].var() and found > 0
