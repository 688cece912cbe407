"""How much of the returns the critic foresees."""

import numpy as np
from numpy.typing import ArrayLike

from phalanx.errors import DataError

__all__ = ["explained_variance"]


def explained_variance(values: ArrayLike, targets: ArrayLike) -> float | None:
    """Share of the targets' variance that the values explain, ``1 - var(targets - values) / var(targets)``.

    A constant critic has 0, a perfect one 1, a harmful one less than 0. Constant offsets do not count.

    Args:
        values: predictions, any shape, in the units of the targets.
        targets: same shape.

    Returns:
        A value <= 1, or ``None`` where the targets do not vary or anything is not finite.

    Raises:
        DataError: shapes differ.

    Example:
        >>> explained_variance([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
        1.0
    """
    values, targets = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    if values.shape != targets.shape:
        raise DataError(f"values have shape {values.shape}, targets {targets.shape}; expected the same")
    if not targets.size or not (np.isfinite(values).all() and np.isfinite(targets).all()):
        return None
    if np.ptp(targets) == 0:
        return None
    return float(1.0 - np.var(targets - values) / np.var(targets))
