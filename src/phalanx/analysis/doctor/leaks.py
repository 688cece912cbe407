"""Columns that tell where a row stands, and through it the label."""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Int8

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask

__all__ = ["check_position", "is_place"]

_WINDOW = 200  # rows
_WINDOWS = 500  # at most
_LEAST_SHARE = 0.05
_LEAST_ROWS = 1000
_COMMON = 0.1
_PLACE = 0.99
_MANY = 30  # distinct values in a window that can tell places apart
_ORDERED = 0.9
_FOLDS = 5
_WORTH = 0.6  # area under the ROC curve from which a column alone tells the label
_GAP = 0.05
_SIDE = 7


class _Sign(NamedTuple):
    """A column that tells places and labels: how closely it follows the order, and its area under the ROC curve."""

    column: str
    ordered: float
    auc_shuffled: float
    auc_held_out: float


def check_position(task: DataTask) -> list[Finding]:
    """Whether a column tells where a row stands, in stretches of the file or for some of the rows, and so its label.

    Two signs are needed. The column is ordered: it rises or falls with the place as a whole, or within windows of rows,
    in file order or in time order, for at least one window in twenty (rank correlation); rows of values that a tenth of
    all rows share are left out, for they may mean that it is not set. And it tells the label of shuffled rows by those
    before and after them: better than of whole stretches that were held out, unless the column is a place as a whole.
    """
    known = np.flatnonzero(task.label >= 0)
    orders = [known] if not task.timed else [known, task.order[task.label[task.order] >= 0]]
    signs = []
    for series in task.frame:
        if not series.dtype.is_numeric():
            continue
        values = series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        told = _told(values)
        candidates = [order[told[order]] for order in orders]
        if len(candidates[0]) < _LEAST_ROWS or len(np.unique(task.label[candidates[0]])) < 2:
            continue
        whole = [_rank_correlation(values[rows]) for rows in candidates]
        shares = [_ordered_share(values[rows]) for rows in candidates]
        best = int(np.argmax(np.maximum(whole, shares)))
        if max(whole) < _PLACE and max(shares) < _LEAST_SHARE:
            continue
        rows = candidates[best]
        shuffled, held_out = _skill(values[rows], task.label[rows], task.seed)
        if shuffled < _WORTH or (max(whole) < _PLACE and shuffled - held_out < _GAP):
            continue
        ordered = max(whole) if max(whole) >= _PLACE else max(shares)
        signs.append(_Sign(series.name, ordered, shuffled, held_out))
    seen = [sign for sign in signs if sign.column in task.chosen]
    unseen = [sign for sign in signs if sign.column not in task.chosen]
    return [_finding(each, among, task.split) for each, among in ((seen, True), (unseen, False)) if each]


def is_place(series: pl.Series) -> bool:
    """Whether a column of numbers rises or falls with the rows as a whole."""
    if not series.dtype.is_numeric():
        return False
    values = series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return _rank_correlation(values[_told(values)]) >= _PLACE


def _told(values: Float[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Rows that hold a value, other than ones that a tenth of the rows share."""
    known = np.isfinite(values)
    distinct, count = np.unique(values[known], return_counts=True)
    return known & ~np.isin(values, distinct[count > _COMMON * len(values)])


def _finding(signs: list[_Sign], seen: bool, split: str) -> Finding:
    worst = max(signs, key=lambda sign: sign.auc_shuffled)
    names = ", ".join(sign.column for sign in signs)
    mixed = split in ("random", "stratified")
    evidence = {
        "columns": [sign.column for sign in signs],
        "among_features": seen,
        "by_column": [sign._asdict() for sign in signs],
    }
    cause = (
        f"{names}: follows the order of the rows, and labels come in runs, so that neighbours tell a row's label "
        f"({worst.column}: AUC {worst.auc_shuffled:.2f} where rows are shuffled, {worst.auc_held_out:.2f} where "
        "stretches are held out)"
    )
    remedy = f"leave out of --features: {names}" if seen else "members do not see them; keep it so"
    remedy += "; and split by time or group (--split time)" if mixed else ""
    severity = ("error" if mixed else "warning") if seen else "info"
    return Finding("label-leak-by-position", severity, evidence, cause, remedy)


def _rank_correlation(values: Float[np.ndarray, " row"]) -> float:
    """How closely values follow their places: the absolute rank correlation, 0 where nearly all are alike."""
    from scipy.stats import rankdata

    if len(np.unique(values)) < _MANY:
        return 0.0
    return float(abs(np.corrcoef(rankdata(values), np.arange(len(values)))[0, 1]))


def _ordered_share(values: Float[np.ndarray, " row"]) -> float:
    """The share of windows in which the values follow the place."""
    windows = values[: len(values) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    windows = windows[:: max(len(windows) // _WINDOWS, 1)]
    return float(np.mean([_rank_correlation(window) >= _ORDERED for window in windows]))


def _skill(
    values: Float[np.ndarray, " row"], label: Int8[np.ndarray, " row"], seed: int
) -> tuple[float, float]:
    """AUC of a column's neighbours' labels for shuffled rows, and for stretches held out."""
    n = len(values)
    shuffled = np.random.default_rng(seed).permutation(n) % _FOLDS
    stretches = np.arange(n) * (10 * _FOLDS) // n % _FOLDS
    return _auc(values, label, shuffled), _auc(values, label, stretches)


def _auc(
    values: Float[np.ndarray, " row"], label: Int8[np.ndarray, " row"], fold: Int[np.ndarray, " row"]
) -> float:
    from sklearn.metrics import roc_auc_score

    score = np.empty(len(values))
    for held in range(_FOLDS):
        out = fold == held
        score[out] = _neighbours(values, label, ~out, out)
    return float(roc_auc_score(label, score))


def _neighbours(
    values: Float[np.ndarray, " row"],
    label: Int8[np.ndarray, " row"],
    fit: Bool[np.ndarray, " row"],
    ask: Bool[np.ndarray, " row"],
) -> Float[np.ndarray, " ask"]:
    """The mean label of the rows with the nearest values, seven on each side; of missing ones where it is missing.

    Rows of equal value are one value with their mean label, so that a column of few values is not told apart by chance.
    """
    known = np.isfinite(values)
    missing = fit & ~known
    found = np.full(int(ask.sum()), float(label[missing if missing.any() else fit].mean()))
    distinct, inverse, count = np.unique(values[fit & known], return_inverse=True, return_counts=True)
    if not len(distinct):
        return found
    total = np.bincount(inverse, label[fit & known])
    asked = values[ask & known]
    at = np.searchsorted(distinct, asked)
    same = (at < len(distinct)) & (distinct[np.minimum(at, len(distinct) - 1)] == asked)
    low, high = np.maximum(at - _SIDE, 0), np.minimum(at + _SIDE, len(distinct))
    sums, counts = np.append(0.0, np.cumsum(total)), np.append(0.0, np.cumsum(count))
    near = (sums[high] - sums[low]) / (counts[high] - counts[low])
    here = np.minimum(at, len(distinct) - 1)
    often = same & (count[here] >= 2 * _SIDE)
    found[known[ask]] = np.where(often, total[here] / count[here], near)
    return found
