"""A run's log as rules read it: one value a row, and statistics that look back only, so that a rule says the same
while a run goes on as after it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from phalanx.analysis.logs import TrainingLog

__all__ = [
    "Course",
    "accumulated",
    "first_row",
    "gain_z",
    "lasting",
    "number",
    "spread_of_last",
    "trailing",
    "trend_z",
    "wandering_z",
]

_OPENINGS = (3, 8)
"""Rows that stand for the untrained policy: few, for it may learn fast, or more, for they may be noisy."""

_WINDOWS = (8, 16, 32)
"""Rows over which a rise of the reward is looked for: a slow one needs many."""

_SCALES = (1, 2, 4, 8, 16)
"""Rows of the means whose scatter tells the error of a mean."""


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

    def tests(self, name: str) -> Float[np.ndarray, " row"]:
        """Score tests of an action's effect (``effect``, ``consequence`` or ``transition``), NaN where the policy tries
        too little for them to mean anything."""
        return np.where(self("policy/entropy_share") < 0.05, np.nan, self(f"policy/{name}_z"))

    def iteration(self, row: int) -> int:
        """The log's own number of a row."""
        return int(self.log.iteration[row])

    @cached_property
    def late(self) -> Bool[np.ndarray, " row"]:
        """Rows by which progress may be missed: half of the budget is gone."""
        return np.arange(len(self)) >= max(25, round(0.5 * self.budget))

    @cached_property
    def rewards(self) -> tuple[Float[np.ndarray, " row"], ...]:
        """The rewards that were logged, of a step and of an episode; episodes that end early may come first."""
        return tuple(self(name) for name in ("reward/step", "reward/episode") if self.has(name))

    @cached_property
    def rise_z(self) -> Float[np.ndarray, " row"]:
        """How clearly a reward lies above that of the untrained policy, or rises, in standard errors; the largest of
        several ways to see it."""
        if not self.rewards:
            return np.full(len(self), np.nan)
        ways = [
            gain_z(reward, window, opening)
            for reward in self.rewards
            for window in _WINDOWS
            for opening in _OPENINGS
        ]
        return np.fmax.reduce([*ways, *(trend_z(reward) for reward in self.rewards)])

    @cached_property
    def improved(self) -> Bool[np.ndarray, " row"]:
        """Whether a reward had risen clearly above that of the untrained policy, at any row so far."""
        return np.maximum.accumulate(np.nan_to_num(self.rise_z, nan=-np.inf)) > 4.0


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


def spread_of_last(values: Float[np.ndarray, " row"], window: int) -> Float[np.ndarray, " row"]:
    """Standard deviation of the last ``window`` values that were logged; NaN until there are so many.

    Example:
        >>> spread_of_last(np.array([1.0, np.nan, 3.0, 3.0]), 2).tolist()
        [nan, nan, 1.0, 0.0]
    """
    known = np.flatnonzero(~np.isnan(values))
    result = np.full(len(values), np.nan)
    if len(known) >= window:
        windows = np.lib.stride_tricks.sliding_window_view(values[known], window)
        result[known[window - 1 :]] = windows.std(axis=1)
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


def gain_z(values: Float[np.ndarray, " row"], window: int = 8, opening: int = 3) -> Float[np.ndarray, " row"]:
    """How far the mean of the last rows lies above that of the first, in standard errors.

    The error of a mean is told by second differences of means of neighbouring stretches, which no steady trend
    inflates, on several scales: where rows are smoothed (a mean over the last 100 episodes, say) the longer stretches
    tell how little they know. The largest counts.

    Args:
        values: NaN where nothing was logged.
        window: rows of the mean.
        opening: first rows.

    Source: von Neumann et al., "The mean square successive difference", 1941, with batch means (Law and Kelton).
    """
    known = np.flatnonzero(np.isfinite(values))
    result = np.full(len(values), np.nan)
    told = values[known]
    n = len(told)
    if n < opening + window:
        return result
    means = np.lib.stride_tricks.sliding_window_view(told, window).mean(axis=1)
    variance = _variance_of_row(told)
    error = np.sqrt(variance[window - 1 :] * (1.0 / window + 1.0 / opening))
    size = np.maximum.accumulate(np.abs(told))[window - 1 :]
    result[known[window - 1 :]] = (means - told[:opening].mean()) / np.maximum(
        error, 1e-9 * np.maximum(size, 1e-30)
    )
    result[known[: window - 1 + opening]] = np.nan
    return _held(result)


def trend_z(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """The slope of a straight line through the rows so far, in standard errors as in ``gain_z``: a slow rise in much
    noise, which no few rows show.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=150)
        >>> bool(trend_z(noise + 0.01 * np.arange(150))[-1] > 3.0), bool(abs(trend_z(noise)[-1]) < 3.0)
        (True, True)
    """
    known = np.flatnonzero(np.isfinite(values))
    result = np.full(len(values), np.nan)
    told = values[known]
    n = len(told)
    if n < 16:
        return result
    count, at = np.arange(1, n + 1), np.arange(n)
    centred = told - told[0]
    moments = np.cumsum(at * centred) / count - np.cumsum(at) / count * np.cumsum(centred) / count
    spread = (np.square(count) - 1.0) / 12.0
    error = np.sqrt(_variance_of_row(told) / np.maximum(count * spread, 1e-30))
    size = np.maximum.accumulate(np.abs(told)) / np.maximum(count, 1)
    z = moments / np.maximum(spread, 1e-30) / np.maximum(error, 1e-9 * np.maximum(size, 1e-30))
    result[known[15:]] = z[15:]
    return _held(result)


def _variance_of_row(told: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """The variance of a row as if rows were independent, by the scale that shows most."""
    return np.max([_error_of_row(told, scale) for scale in _SCALES], axis=0)


def wandering_z(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """The gain since the first row where rows wander: in standard errors of a random walk with steps as large as these;
    infinite, with its sign, where neighbouring differences undo each other, as those of independent rows do."""
    known = np.flatnonzero(np.isfinite(values))
    result = np.full(len(values), np.nan)
    told = values[known]
    if len(told) < 8:
        return result
    steps = np.diff(told)
    count = np.arange(1, len(steps) + 1)
    drift = np.cumsum(steps) / count
    spread = np.maximum(np.cumsum(np.square(steps)) / count - np.square(drift), 0.0)
    products = np.concatenate([[0.0], np.cumsum(steps[1:] * steps[:-1])]) / np.maximum(
        count - 1, 1
    ) - np.square(drift)
    undone = products < -0.25 * spread
    gain = told[1:] - told[0]
    z = gain / np.maximum(np.sqrt(spread * count), 1e-12 * np.maximum(np.abs(gain), 1e-30))
    result[known[7:]] = np.where(undone, np.sign(gain) * np.inf, z)[6:]
    return _held(result)


def _error_of_row(told: Float[np.ndarray, " row"], scale: int) -> Float[np.ndarray, " row"]:
    """The variance that independent rows would have whose means over ``scale`` rows scatter as these do; of the rows so
    far, 0 where they are too few."""
    n = len(told)
    sums = np.concatenate([[0.0], np.cumsum(told)])
    ends = np.arange(scale, n + 1, scale)
    means = (sums[ends] - sums[ends - scale]) / scale
    if len(means) < 4:
        return np.zeros(n)
    second = np.square(means[2:] - 2.0 * means[1:-1] + means[:-2]) / 6.0
    so_far = scale * np.cumsum(second) / np.arange(1, len(second) + 1)
    so_far[0] = 0.0  # one says nothing
    at = (np.arange(n) + 1) // scale - 3  # second differences that are complete at a row
    return np.where(at >= 0, so_far[np.clip(at, 0, len(so_far) - 1)], 0.0)


def first_row(where: Bool[np.ndarray, " row"]) -> int | None:
    """The first row where a rule holds."""
    rows = np.flatnonzero(where)
    return int(rows[0]) if len(rows) else None


def lasting(where: Bool[np.ndarray, " row"]) -> int | None:
    """Since which row a rule holds without a break up to the last; None where it does not hold there.

    Example:
        >>> lasting(np.array([True, False, True, True])), lasting(np.array([True, False]))
        (2, None)
    """
    if not len(where) or not where[-1]:
        return None
    breaks = np.flatnonzero(~where)
    return int(breaks[-1]) + 1 if len(breaks) else 0


def number(value: float) -> float | None:
    """A figure of the evidence; None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _held(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """The latest value where a row has none."""
    at = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(at >= 0, values[np.maximum(at, 0)], np.nan)
