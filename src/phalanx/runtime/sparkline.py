"""The course of a quantity in one line of text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["ASCII", "BLOCKS", "sparkline"]

BLOCKS = "▁▂▃▄▅▆▇█"
"""Heights from least to most."""

ASCII = "_.:-=+*#"
"""The same where a terminal's encoding has no blocks."""

_GAP = " "


def sparkline(
    values: Sequence[float],
    width: int,
    *,
    bounds: tuple[float, float] | None = None,
    heights: str = BLOCKS,
) -> str:
    """Values as heights: one character a value, or the mean of neighbours where there are more than fit.

    Args:
        values: the course; what is not finite is a gap.
        width: characters at most.
        bounds: values of the lowest and of the highest character, and beyond; the least and the most drawn unless
            given.
        heights: the characters, lowest first.

    Example:
        >>> sparkline([0.0, 1.0, float("nan"), 2.0, 7.0], 10, heights=ASCII)
        '_. :#'
        >>> sparkline([0.0, 2.0, 4.0, 6.0], 2, bounds=(0.0, 8.0), heights=ASCII)
        '.+'
    """
    course = np.array(values, dtype=float)
    if not course.size or width <= 0:
        return ""
    course[~np.isfinite(course)] = np.nan
    if bounds is None:
        course /= np.nanmax(np.abs(course), initial=0.0) or 1.0  # sums and differences cannot overflow
    else:
        course = np.clip(course, *bounds)
    means = _means(course, min(course.size, width))
    known = means[~np.isnan(means)]
    if not known.size:
        return _GAP * means.size
    least, most = bounds or (known.min(), known.max())
    share = (means - least) / (most - least) if most > least else np.where(np.isnan(means), np.nan, 0.0)
    return "".join(
        _GAP if np.isnan(each) else heights[min(int(each * len(heights)), len(heights) - 1)] for each in share
    )


def _means(course: Float[np.ndarray, " step"], n_bins: int) -> Float[np.ndarray, " bin"]:
    """Means of what is known in bins of neighbours, NaN where nothing is."""
    starts = np.arange(n_bins) * course.size // n_bins
    known = ~np.isnan(course)
    count = np.add.reduceat(known.astype(int), starts)
    total = np.add.reduceat(np.where(known, course, 0.0), starts)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    # rounding puts no mean outside its bin's values: a constant stays one, and what rises does
    return np.clip(means, np.fmin.reduceat(course, starts), np.fmax.reduceat(course, starts))
