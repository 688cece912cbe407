"""Whether the members of a committee are one voice.

NumPy only. Undefined values are ``None`` (JSON null), never a silent 0 or NaN; each function says when.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from phalanx.analysis.checks import ratio, same_length, severity, whole_numbers
from phalanx.errors import DataError
from phalanx.types import N_VERDICTS

__all__ = ["CommitteeMetrics", "committee_metrics"]


@dataclass(frozen=True)
class CommitteeMetrics:
    """How far the members are one voice.

    Attributes:
        agreement: share of events whose received votes are all equal; ``None`` without any event with votes.
        error_correlation: mean over pairs of members of the correlation of their errors, in [-1, 1]; a pair
            in which a member never errs, or always, has none; ``None`` when no pair has one.
        abstain: share of votes that were not received; ``None`` without votes to cast.
    """

    agreement: float | None
    error_correlation: float | None
    abstain: float | None


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) == 0 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def committee_metrics(
    votes: Int[np.ndarray, "event member"] | ArrayLike,
    label: Int[np.ndarray, " event"] | ArrayLike | None = None,
    *,
    positive: str = "alert",
) -> CommitteeMetrics:
    """Agreement, correlation of errors and abstention of the members.

    Args:
        votes: 0..3 per event and member, -1 where no vote was received.
        label: 1 malicious, 0 benign, -1 unknown (no error counted), one per event; ``None``: all unknown.
        positive: as in ``detection_metrics``; an error is a vote on the wrong side of it.

    Raises:
        DataError: a vote or label out of range, or columns of different length.

    Example:
        >>> committee_metrics([[0, 0], [1, 1], [3, 3], [-1, 2]], [0, 0, 1, 1])
        CommitteeMetrics(agreement=1.0, error_correlation=1.0, abstain=0.125)
    """
    mildest = severity(positive)
    votes = whole_numbers("vote", votes, -1, N_VERDICTS - 1)
    if votes.ndim != 2:
        raise DataError(f"votes have {votes.ndim} axes; expected two: event and member")
    received = votes >= 0
    some = received.any(axis=1)
    highest = votes.max(axis=1, initial=-1)
    lowest = np.where(received, votes, N_VERDICTS).min(axis=1, initial=N_VERDICTS)
    correlations: list[float] = []
    if label is not None:
        label = whole_numbers("label", label, -1, 1)
        same_length(votes=votes, label=label)
        wrong = ((votes >= mildest) != (label == 1)[:, None]).astype(np.float64)
        for i, j in combinations(range(votes.shape[1]), 2):
            both = received[:, i] & received[:, j] & (label >= 0)
            value = _correlation(wrong[both, i], wrong[both, j])
            correlations += [] if value is None else [value]
    return CommitteeMetrics(
        agreement=ratio(int((some & (highest == lowest)).sum()), int(some.sum())),
        error_correlation=float(np.mean(correlations)) if correlations else None,
        abstain=ratio(int((~received).sum()), votes.size),
    )
