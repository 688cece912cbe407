"""A run's log as rules read it: one value a row, and statistics that look back only, so that a rule says the same
while a run goes on as after it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from phalanx.analysis.logs import TrainingLog

__all__ = ["Course", "accumulated", "first_row", "gain_z", "trailing"]

_OPENING = 3
"""Rows that stand for the untrained policy."""


@dataclass(frozen=True, eq=False)
class Course:
    """A log with a value for every row.

    Attributes:
        log: as read.
        budget: rows that the run is to have; those it has where nobody said.
    """

    log: TrainingLog
    budget: int

    def __len__(self) -> int:
        return len(self.log)

    def has(self, *names: str) -> bool:
        """Whether each of them was logged at least once."""
        return all(name in self.log.series for name in names)

    def __call__(self, name: str) -> Float[np.ndarray, " row"]:
        """The values of a quantity, NaN where it was not logged."""
        values = np.full(len(self.log), np.nan)
        if name in self.log.series:
            series = self.log.series[name]
            values[series.row] = series.value
        return values

    def iteration(self, row: int) -> int:
        """The log's own number of a row."""
        return int(self.log.iteration[row])


def trailing(values: Float[np.ndarray, " row"], window: int, share: float = 0.5) -> Float[np.ndarray, " row"]:
    """A quantile of the last ``window`` values that were logged; NaN until there are so many.

    Example:
        >>> trailing(np.array([1.0, np.nan, 3.0, 8.0]), 3).tolist()
        [nan, nan, nan, 3.0]
    """
    known = np.flatnonzero(~np.isnan(values))
    result = np.full(len(values), np.nan)
    if len(known) >= window:
        windows = np.lib.stride_tricks.sliding_window_view(values[known], window)
        with np.errstate(invalid="ignore"):
            result[known[window - 1 :]] = np.quantile(windows, share, axis=1)
    return _held(result)


def accumulated(z: Float[np.ndarray, " row"], window: int | None = None) -> Float[np.ndarray, " row"]:
    """Independent z values of the rows so far, or of the last ``window``, as one.

    Example:
        >>> accumulated(np.array([1.0, 1.0, 1.0, 1.0])).tolist()
        [1.0, 1.414..., 1.732..., 2.0]

    Source: Stouffer et al. 1949.
    """
    known = np.isfinite(z)
    total, count = np.cumsum(np.where(known, z, 0.0)), np.cumsum(known)
    if window is not None:
        total[window:] = total[window:] - total[:-window]
        count[window:] = count[window:] - count[:-window]
    return np.where(count > 0, total / np.sqrt(np.maximum(count, 1)), np.nan)


def gain_z(values: Float[np.ndarray, " row"], window: int = 8) -> Float[np.ndarray, " row"]:
    """How far the mean of the last rows lies above that of the first, in standard errors.

    The error is that of single rows, from differences of neighbours, which a trend does not inflate.

    Args:
        values: NaN where nothing was logged.
        window: rows of the mean.

    Source: von Neumann et al., "The mean square successive difference", 1941.
    """
    known = np.flatnonzero(np.isfinite(values))
    result = np.full(len(values), np.nan)
    if len(known) < _OPENING + window:
        return result
    told = values[known]
    opening = told[:_OPENING].mean()
    means = np.lib.stride_tricks.sliding_window_view(told, window).mean(axis=1)
    squares = np.cumsum(np.square(np.diff(told))) / np.arange(1, len(told)) / 2.0
    error = np.sqrt(squares[window - 2 :] * (1.0 / window + 1.0 / _OPENING))
    scale = np.maximum(error, 1e-9 * np.maximum(np.abs(told).max(), 1e-30))
    result[known[window - 1 :]] = (means - opening) / scale
    result[known[: window - 1 + _OPENING]] = np.nan
    return _held(result)


def first_row(where: Bool[np.ndarray, " row"]) -> int | None:
    """The first row where a rule holds."""
    rows = np.flatnonzero(where)
    return int(rows[0]) if len(rows) else None


def _held(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """The latest value where a row has none."""
    at = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(at >= 0, values[np.maximum(at, 0)], np.nan)
