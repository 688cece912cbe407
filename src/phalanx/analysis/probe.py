"""Supervised probes: how far gradient boosting predicts labels or returns from the members' own inputs.

A policy that stays far below the probe has not learned what its observation holds; a probe that does no
better than a constant says that the observation holds nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from phalanx.analysis.metrics import Detection, best_threshold, detection_metrics
from phalanx.errors import DataError
from phalanx.types import Verdict

__all__ = ["Probe", "ProbeResult", "Rows", "evaluate_probe", "fit_probe", "regression_ceiling"]

_MAX_CATEGORIES = 254
"""Histogram boosting holds at most 255 bins a column, one of them for rare and unseen values."""


@runtime_checkable
class Rows(Protocol):
    """Encoded events: ids [row, column], scaled numbers [row, feature] and labels [row]."""

    @property
    def category(self) -> np.ndarray:
        """Ids, one per categorical column, >= 0."""
        ...

    @property
    def numeric(self) -> np.ndarray:
        """Scaled numbers."""
        ...

    @property
    def label(self) -> np.ndarray:
        """1 malicious, 0 benign, -1 unknown."""
        ...


@dataclass(frozen=True)
class Probe:
    """A fitted classifier with the codes of its categories.

    Attributes:
        codes: per categorical column, id -> code (NaN: rare or not seen in training).
        model: the scikit-learn classifier.
        threads: used for prediction.
    """

    codes: tuple[Float[np.ndarray, " _"], ...]
    model: Any
    threads: int = 1

    def score(
        self, category: Int[np.ndarray, "row column"], numeric: Float[np.ndarray, "row feature"]
    ) -> Float[np.ndarray, " row"]:
        """P(malicious) of each row, in [0, 1]."""
        with _limited(self.threads):
            return self.model.predict_proba(_design(self.codes, category, numeric))[:, 1]


@dataclass(frozen=True)
class ProbeResult:
    """A probe's honest result: fitted on training, threshold from validation, measured on test rows.

    Attributes:
        detection: on the test rows, at the threshold.
        threshold: chosen for the best F1 on the validation rows.
        validation_f1: reached there.
    """

    detection: Detection
    threshold: float
    validation_f1: float


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    """Bounds OpenMP: one spinning thread per visible core is up to 70 times slower on a shared machine."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        yield


def _codes(category: np.ndarray) -> tuple[np.ndarray, ...]:
    tables = []
    for column in category.T:
        counts = np.bincount(column)
        frequent = np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]
        frequent = np.sort(frequent[counts[frequent] > 0])
        table = np.full(counts.size, np.nan)
        table[frequent] = np.arange(frequent.size)
        tables.append(table)
    return tuple(tables)


def _design(codes: tuple[np.ndarray, ...], category: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    category, numeric = np.asarray(category), np.asarray(numeric, np.float64)
    tables = category.ndim == 2 and numeric.ndim == 2
    if not tables or len(category) != len(numeric) or category.shape[1] != len(codes):
        raise DataError(
            f"category has shape {category.shape} and numeric {numeric.shape}; "
            f"expected [row, {len(codes)}] and [row, feature] with as many rows"
        )
    columns = []
    for table, ids in zip(codes, category.T, strict=True):
        inside = (ids >= 0) & (ids < table.size)
        columns.append(np.where(inside, table[np.where(inside, ids, 0)] if table.size else np.nan, np.nan))
    return np.column_stack([*columns, numeric]) if columns else numeric


def _settings(codes: tuple[np.ndarray, ...], width: int, seed: int, iterations: int) -> dict[str, Any]:
    # no early stopping: it would cut a random, not a later, part of the training rows for itself
    return {
        "max_iter": iterations,
        "early_stopping": False,
        "random_state": seed,
        "categorical_features": [i < len(codes) for i in range(width)],
    }


def fit_probe(
    category: Int[np.ndarray, "row column"],
    numeric: Float[np.ndarray, "row feature"],
    label: ArrayLike,
    seed: int = 0,
    *,
    iterations: int = 100,
    threads: int = 1,
) -> Probe:
    """Fits gradient boosting to the labels of training rows.

    Args:
        category: ids, one per categorical column, >= 0; the 254 most frequent of each are told apart.
        numeric: scaled numbers; NaN means missing.
        label: 1 malicious, 0 benign, -1 unknown (left out).
        seed: of the random numbers.
        iterations: trees.
        threads: of OpenMP.

    Raises:
        DataError: shapes differ or only one class is present.

    Example:
        >>> x = np.arange(40)[:, None]
        >>> probe = fit_probe(x % 2, x / 40.0, x[:, 0] % 2, seed=0)
        >>> bool(probe.score(np.array([[1]]), np.array([[0.5]]))[0] > 0.5)
        True

    Source:
        Histogram gradient boosting with native categories: Ke et al. (2017), "LightGBM".
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    category, numeric, label = np.asarray(category), np.asarray(numeric), np.asarray(label)
    if len(label) != len(category):
        raise DataError(f"{len(label)} labels for {len(category)} rows; expected one each")
    known = label >= 0
    classes = np.unique(label[known])
    if classes.tolist() != [0, 1]:
        raise DataError(
            f"known labels of the training rows are {classes.tolist()}; expected both 0 and 1. "
            "Use a training part with benign and malicious events, or a stratified or group split"
        )
    codes = _codes(category[known])
    inputs = _design(codes, category[known], numeric[known])
    model = HistGradientBoostingClassifier(**_settings(codes, inputs.shape[1], seed, iterations))
    with _limited(threads):
        model.fit(inputs, label[known])
    return Probe(codes, model, threads)


def evaluate_probe(
    train: Rows, validation: Rows, test: Rows, *, seed: int = 0, iterations: int = 100, threads: int = 1
) -> ProbeResult:
    """Fits on ``train``, chooses the threshold on ``validation`` and measures on ``test``.

    Raises:
        DataError: a part lacks the classes that it needs.
    """
    settings = {"iterations": iterations, "threads": threads}
    probe = fit_probe(train.category, train.numeric, train.label, seed, **settings)
    chosen = best_threshold(validation.label, probe.score(validation.category, validation.numeric))
    score = probe.score(test.category, test.numeric)
    verdict = np.where(score >= chosen.threshold, int(Verdict.ALERT), int(Verdict.ALLOW))
    return ProbeResult(detection_metrics(test.label, verdict, score), chosen.threshold, chosen.value)


def regression_ceiling(
    inputs: Float[np.ndarray, "row feature"],
    returns: Float[np.ndarray, " row"],
    groups: ArrayLike,
    *,
    category: Int[np.ndarray, "row column"] | None = None,
    folds: int = 5,
    seed: int = 0,
    iterations: int = 100,
    threads: int = 1,
) -> float | None:
    """Explained variance of the returns that a regression of the critic's inputs reaches: what to expect of a critic.

    1 - Var[R - prediction] / Var[R], cross-validated, the better of ridge regression and gradient boosting. Folds hold
    whole environments: neighbouring steps share most of their return, and a split between them would leak it. Boosting
    is held back (large leaves, shrunk values), for it would learn heavy-tailed returns of single episodes by heart.

    Args:
        inputs: what the critic sees, one row per step.
        returns: its targets, one per step.
        groups: the environment (or episode) of each step.
        category: ids of categorical columns, where there are some.
        folds: at most; no more than there are groups.
        seed: of the boosting.
        iterations: trees.
        threads: of OpenMP.

    Returns:
        A value <= 1, below 0 where the inputs mislead, or ``None`` where the returns do not vary.

    Raises:
        DataError: fewer than two groups, or lengths differ.
    """
    from sklearn.model_selection import GroupKFold

    inputs, returns = np.asarray(inputs, np.float64), np.asarray(returns, np.float64)
    groups = np.asarray(groups)
    category = np.zeros((len(inputs), 0), np.int64) if category is None else np.asarray(category)
    if not len(inputs) == len(returns) == len(groups):
        raise DataError(
            f"{len(inputs)} inputs, {len(returns)} returns and {len(groups)} groups; expected as many of each"
        )
    n_groups = np.unique(groups).size
    if n_groups < 2:
        raise DataError(f"groups: {n_groups} in all; expected at least 2 environments to hold one out")
    if np.ptp(returns) == 0:
        return None
    predicted = np.empty((2, len(returns)))
    for fit, held_out in GroupKFold(min(folds, n_groups)).split(inputs, returns, groups):
        codes = _codes(category[fit])
        design = _design(codes, category[fit], inputs[fit])
        asked = _design(codes, category[held_out], inputs[held_out])
        for row, model in enumerate(_regressors(codes, design, seed, iterations)):
            with _limited(threads):
                predicted[row, held_out] = model.fit(design, returns[fit]).predict(asked)
    return float(1.0 - (returns - predicted).var(axis=1).min() / returns.var())


def _regressors(codes: tuple[np.ndarray, ...], design: np.ndarray, seed: int, iterations: int) -> list[Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    ids, numbers = list(range(len(codes))), list(range(len(codes), design.shape[1]))
    parts = [("ids", one_hot, ids), ("numbers", StandardScaler(), numbers)]
    columns = ColumnTransformer([part for part in parts if part[2]])
    ridge = make_pipeline(columns, RidgeCV(alphas=np.logspace(0, 5, 6)))
    settings = _settings(codes, design.shape[1], seed, iterations)
    leaf = max(20, len(design) // 300)
    boosting = HistGradientBoostingRegressor(
        min_samples_leaf=leaf, l2_regularization=10.0, max_leaf_nodes=15, **settings
    )
    return [ridge, boosting]
