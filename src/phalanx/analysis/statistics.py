"""Statements over seeds: interquartile mean, bootstrap intervals and paired differences.

Half-dozen-seed results scatter, so a claim carries an interval and its worst seed, never a bare mean. Where values
vary by episode too, see ``hierarchical``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from phalanx.errors import DataError, UsageError

__all__ = ["bootstrap_interval", "interquartile_mean", "paired_difference", "summary"]

Statistic = Callable[[Float[np.ndarray, "resample value"]], Float[np.ndarray, " resample"]]

_CHUNK = 2_000_000
"""Numbers resampled at a time, so that memory stays bounded."""


def interquartile_mean(values: ArrayLike, axis: int = -1) -> np.ndarray | float:
    """Mean of the middle half: ``floor(n / 4)`` values are cut from each end.

    Args:
        values: at least one along ``axis``.
        axis: reduced.

    Returns:
        A float for one-dimensional input, else an array without ``axis``.

    Raises:
        DataError: nothing to average.

    Example:
        >>> interquartile_mean([0.0, 5.0, 6.0, 100.0])
        5.5

    Source:
        Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice", section 4.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    n = ordered.shape[axis] if ordered.ndim else 0
    if n == 0:
        raise DataError("no values to average; expected at least one")
    middle = np.take(ordered, np.arange(n // 4, n - n // 4), axis=axis).mean(axis=axis)
    return float(middle) if np.ndim(middle) == 0 else middle


def _strata(strata: ArrayLike | None, n: int) -> list[np.ndarray]:
    if strata is None:
        return [np.arange(n)]
    labels = np.asarray(strata)
    if labels.shape != (n,):
        raise DataError(f"strata have shape {labels.shape}; expected one label for each of {n} values")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic | None = None,
    *,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic; each stratum is resampled within itself.

    With few values the interval is too narrow: for the interquartile mean of Gaussian values a nominal 95 %
    covers about 94 % with 10 values and about 89 % with 5. Claims therefore ask for 10 seeds.

    Args:
        values: finite numbers, one per seed or per seed and task.
        statistic: maps ``[resample value]`` to ``[resample]``; the interquartile mean by default.
        strata: a label per value (the task or the campaign type); values are only exchanged within a stratum.
        level: coverage asked for, in (0, 1).
        resamples: bootstrap samples.
        seed: of the random numbers: the same call gives the same interval.

    Returns:
        (low, high); both equal the value where there is only one.

    Raises:
        DataError: no values, or some are not finite.
        UsageError: ``level`` or ``resamples`` out of range.

    Example:
        >>> low, high = bootstrap_interval([0.8, 0.9, 0.7, 0.85, 0.95])
        >>> 0.7 <= low < high <= 0.95
        True

    Source:
        Efron and Tibshirani (1993), chapter 13; stratified as in Agarwal et al. (2021), section 4.1.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise DataError(f"values={array!r}; expected a list of at least one finite number")
    if not 0.0 < level < 1.0 or resamples < 1:
        raise UsageError(f"level={level}, resamples={resamples}; expected 0 < level < 1 and resamples >= 1")
    groups = _strata(strata, array.size)
    compute = statistic or interquartile_mean
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    step = max(1, _CHUNK // array.size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        picks = [group[rng.integers(group.size, size=(rows, group.size))] for group in groups]
        found.append(np.asarray(compute(array[np.concatenate(picks, axis=1)])))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summary(
    values: Sequence[float | None] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """One metric over seeds: mean, interquartile mean with its interval, the minimum and the number of seeds.

    Args:
        values: one per seed; ``None`` and non-finite values (undefined there) are left out and counted.
        level: of the interval of the interquartile mean.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        ``mean``, ``iqm``, ``low``, ``high``, ``min`` (``None`` where no value is known), ``n``, ``missing``.

    Example:
        >>> result = summary([0.5, 0.5, None])
        >>> result["iqm"], result["low"], result["high"], result["n"], result["missing"]
        (0.5, 0.5, 0.5, 2, 1)
    """
    every = np.array([np.nan if value is None else value for value in values], np.float64)
    known = every[np.isfinite(every)]
    counts = {"n": int(known.size), "missing": int(every.size - known.size)}
    if not known.size:
        return {"mean": None, "iqm": None, "low": None, "high": None, "min": None, **counts}
    low, high = bootstrap_interval(known, level=level, resamples=resamples, seed=seed)
    iqm = float(interquartile_mean(known))
    mean, least = float(known.mean()), float(known.min())
    return {"mean": mean, "iqm": iqm, "low": low, "high": high, "min": least, **counts}


def paired_difference(
    before: Sequence[float | None] | np.ndarray,
    after: Sequence[float | None] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Summary of ``after - before`` seed by seed: pairs share a seed, so its luck cancels.

    A pair with an undefined side is left out and counted as missing. ``min`` is the seed that gained least.

    Raises:
        DataError: the two have different lengths.

    Example:
        >>> paired_difference([1.0, 2.0], [2.0, 3.0])["iqm"]
        1.0
    """
    if len(before) != len(after):
        raise DataError(f"{len(before)} values before and {len(after)} after; expected one pair per seed")
    gains = [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
    return summary(gains, level=level, resamples=resamples, seed=seed)
