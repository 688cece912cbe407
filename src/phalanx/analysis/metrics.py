"""What a policy is worth: detection, response, the committee's diversity and the critic's explained variance.

NumPy only. Undefined values are ``None`` (JSON null), never a silent 0 or NaN; each function says when.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from phalanx.errors import DataError, unknown_name
from phalanx.types import N_VERDICTS, Score, Verdict

__all__ = [
    "POSITIVE",
    "THRESHOLD_METRICS",
    "CommitteeMetrics",
    "Detection",
    "ResponseMetrics",
    "Threshold",
    "average_precision",
    "best_threshold",
    "committee_metrics",
    "detection_metrics",
    "explained_variance",
    "response_metrics",
]

POSITIVE = {"alert": Verdict.ALERT, "restrict": Verdict.BLOCK}
"""The mildest verdict that counts as positive, by name."""

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Detection:
    """How well verdicts tell malicious from benign events; rows of unknown label are left out.

    Attributes:
        tp: malicious and flagged.
        tn: benign and not flagged.
        fp: benign and flagged.
        fn: malicious and not flagged.
        precision: tp / (tp + fp); 0 when nothing was flagged, ``None`` when there was also nothing to flag.
        recall: tp / (tp + fn); ``None`` without malicious events.
        f1: harmonic mean of both; 0 when nothing was flagged, ``None`` without malicious events.
        mcc: Matthews correlation in [-1, 1]; 0 when all verdicts agree, ``None`` when all labels do.
        pr_auc: average precision of the score; ``None`` without malicious events or without scores.
        base_rate: share of malicious events; ``None`` without any known label.
        unknown: rows left out because their label is -1.
    """

    tp: int
    tn: int
    fp: int
    fn: int
    precision: float | None
    recall: float | None
    f1: float | None
    mcc: float | None
    pr_auc: float | None
    base_rate: float | None
    unknown: int


@dataclass(frozen=True)
class Threshold:
    """The operating point found on validation data: flag an event when its score is >= ``threshold``.

    Attributes:
        threshold: one of the scores, or inf where flagging nothing is best.
        value: the metric reached at it on the data it was chosen on; never a result to report.
    """

    threshold: float
    value: float


@dataclass(frozen=True)
class ResponseMetrics:
    """What the verdicts did to attacks, to benign work and to the analysts.

    Attributes:
        damage_prevented: (damage of always-allow - damage) / (damage of always-allow - damage of the oracle);
            not clipped: below 0 is worse than doing nothing; ``None`` where the oracle prevents nothing.
        availability: 1 - benign events lost / benign events; ``None`` without benign events.
        time_to_contain_s: mean over the *contained* campaigns, in s; ``None`` when none was. The others are
            censored: the mean says nothing about them, so read it with ``contained_share``.
        contained_share: contained campaigns / campaigns; ``None`` without campaigns.
        campaigns: campaigns with at least one attempted event.
        censored: campaigns that were not contained before the episode's end.
        false_blocks_per_million: benign events answered with block or quarantine, per million benign events.
        alerts_per_day: tickets opened per 24 h of covered time; ``None`` where no time is covered.
    """

    damage_prevented: float | None
    availability: float | None
    time_to_contain_s: float | None
    contained_share: float | None
    campaigns: int
    censored: int
    false_blocks_per_million: float | None
    alerts_per_day: float | None


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


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _severity(positive: str) -> int:
    if positive not in POSITIVE:
        raise unknown_name("positive", positive, POSITIVE)
    return int(POSITIVE[positive])


def _checked(name: str, values: ArrayLike, low: int, high: int) -> np.ndarray:
    array = np.asarray(values)
    bad = np.argwhere((array < low) | (array > high) | (array != np.floor(array)) | np.isnan(array))
    if bad.size:
        place = tuple(int(i) for i in bad[0])
        where = str(place[0]) if len(place) == 1 else str(place)
        raise DataError(
            f"{name}={array[place]} at row {where}; expected a whole number from {low} to {high}. "
            "Map the column to these values first"
        )
    return array.astype(np.int64)


def _same_length(**arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise DataError(f"rows differ in number: {listed}. Pass one entry per event in each")


def _curve(
    label: np.ndarray, score: np.ndarray
) -> tuple[Float[np.ndarray, " cut"], Float[np.ndarray, " cut"], Float[np.ndarray, " cut"]]:
    """Distinct scores in falling order with the true and false positives of ``score >= cut``; O(n log n)."""
    if not np.isfinite(score).all():
        row = int(np.flatnonzero(~np.isfinite(score))[0])
        raise DataError(
            f"score={score[row]} at known row {row}; expected a finite number. Look for NaN upstream"
        )
    order = np.argsort(-score, kind="stable")
    score, hit = score[order], label[order] == 1
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # last row of each group of ties
    tp = np.cumsum(hit)[last].astype(np.float64)
    return score[last], tp, last + 1.0 - tp


def average_precision(label: ArrayLike, score: ArrayLike) -> float | None:
    r"""Area under the precision-recall curve as a sum of steps, :math:`\sum_k (R_k - R_{k-1}) P_k`.

    Args:
        label: 1 malicious, 0 benign, -1 unknown (left out), one per event.
        score: larger means more suspicious, finite, one per event.

    Returns:
        A value in [0, 1], about the base rate for random scores; ``None`` without malicious events.

    Raises:
        DataError: a label or score out of range.

    Example:
        >>> average_precision([0, 1, 1], [0.1, 0.9, 0.8])
        1.0

    Source:
        Davis and Goadrich (2006), "The relationship between precision-recall and ROC curves": linear
        interpolation between points would be too optimistic, so there is none.
    """
    label, score = _checked("label", label, -1, 1), np.asarray(score, np.float64)
    _same_length(label=label, score=score)
    known = label >= 0
    if not (label == 1).any():
        return None
    _, tp, fp = _curve(label[known], score[known])
    gain = np.diff(tp, prepend=0.0) / tp[-1]
    return float((gain * tp / (tp + fp)).sum())


def _mcc(tp: float, tn: float, fp: float, fn: float) -> float | None:
    if tp + fn == 0 or tn + fp == 0:
        return None
    if tp + fp == 0 or tn + fn == 0:
        return 0.0
    # roots first: the product of four counts leaves the exact range of float64
    scale = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return float(np.clip((tp * tn - fp * fn) / scale, -1.0, 1.0))


def detection_metrics(
    label: ArrayLike, verdict: ArrayLike, score: ArrayLike | None = None, *, positive: str = "alert"
) -> Detection:
    """Counts and rates of verdicts against labels.

    Args:
        label: 1 malicious, 0 benign, -1 unknown, one per event.
        verdict: 0..3, one per event.
        score: larger means more suspicious, one per event; needed for ``pr_auc`` only.
        positive: ``alert`` counts verdicts >= alert as positive, ``restrict`` those >= block.

    Raises:
        DataError: a value out of range, or columns of different length.
        UsageError: another name for ``positive``.

    Example:
        >>> found = detection_metrics([1, 1, 0, 0, -1], [3, 0, 1, 0, 2])
        >>> found.tp, found.fn, found.fp, found.tn, found.unknown, found.f1
        (1, 1, 1, 1, 1, 0.5)
    """
    severity = _severity(positive)
    label = _checked("label", label, -1, 1)
    verdict = _checked("verdict", verdict, 0, N_VERDICTS - 1)
    _same_length(label=label, verdict=verdict)
    known, flagged = label >= 0, verdict >= severity
    tp = int((flagged & (label == 1)).sum())
    fp = int((flagged & (label == 0)).sum())
    fn = int((~flagged & (label == 1)).sum())
    tn = int((~flagged & (label == 0)).sum())
    threats = tp + fn
    precision = _ratio(tp, tp + fp)
    return Detection(
        tp=tp,
        tn=tn,
        fp=fp,
        fn=fn,
        precision=0.0 if precision is None and threats else precision,
        recall=_ratio(tp, threats),
        f1=2.0 * tp / (2.0 * tp + fp + fn) if threats else None,
        mcc=_mcc(tp, tn, fp, fn),
        pr_auc=None if score is None else average_precision(label, score),
        base_rate=_ratio(threats, int(known.sum())),
        unknown=int((~known).sum()),
    )


_Counts = Float[np.ndarray, " cut"]


def _f1(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    return 2.0 * tp / (tp + fp + threats)


def _mcc_curve(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    flagged = tp + fp
    scale = np.sqrt(flagged) * np.sqrt(threats) * np.sqrt(benign) * np.sqrt(threats + benign - flagged)
    return np.divide(tp * benign - fp * threats, scale, out=np.zeros_like(tp), where=scale > 0)


def _balanced_accuracy(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    return 0.5 * (tp / threats + 1.0 - (fp / benign if benign else 0.0 * fp))


THRESHOLD_METRICS: dict[str, Callable[[_Counts, _Counts, float, float], _Counts]] = {
    "f1": _f1,
    "mcc": _mcc_curve,
    "balanced_accuracy": _balanced_accuracy,
}
"""Metrics that a threshold can be chosen by; each maps (tp, fp, malicious, benign) per cut to its value."""


def best_threshold(label: ArrayLike, score: ArrayLike, metric: str = "f1") -> Threshold:
    """The exact best operating point of a score, for *validation* data only.

    Looks at every distinct score and at "flag nothing"; among equals the highest (fewest alerts) wins.

    Args:
        label: 1 malicious, 0 benign, -1 unknown (left out), one per event.
        score: larger means more suspicious, finite, one per event.
        metric: a name of ``THRESHOLD_METRICS``.

    Raises:
        DataError: no malicious event, or values out of range.
        UsageError: another metric.

    Example:
        >>> best_threshold([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.9])
        Threshold(threshold=0.4, value=0.8)
    """
    if metric not in THRESHOLD_METRICS:
        raise unknown_name("threshold metric", metric, THRESHOLD_METRICS)
    label, score = _checked("label", label, -1, 1), np.asarray(score, np.float64)
    _same_length(label=label, score=score)
    known = label >= 0
    threats, benign = float((label == 1).sum()), float((label == 0).sum())
    if not threats:
        raise DataError(
            f"label: none of {int(known.sum())} known validation rows is malicious, so no threshold fits. "
            "Use a validation part with malicious events, or a stratified or group split"
        )
    cut, tp, fp = _curve(label[known], score[known])
    cut, tp, fp = (np.concatenate([[first], rest]) for first, rest in ((np.inf, cut), (0.0, tp), (0.0, fp)))
    values = THRESHOLD_METRICS[metric](tp, fp, threats, benign)
    best = int(np.argmax(values))  # the first maximum: the highest threshold
    return Threshold(float(cut[best]), float(values[best]))


def _total(score: Score, name: str) -> float:
    return float(np.asarray(getattr(score, name), np.float64).sum())


def response_metrics(policy: Score, always_allow: Score, oracle: Score) -> ResponseMetrics:
    """The response of a policy, from the totals of closed-loop episodes with the same environment seeds.

    Args:
        policy: totals at the ends of episodes, any leading shape (summed over).
        always_allow: totals of the policy that allows everything.
        oracle: totals of the policy that knows the labels.

    Example:
        >>> import jax.numpy as jnp
        >>> totals = dict.fromkeys(Score.__dataclass_fields__, jnp.zeros(()))
        >>> scores = [Score(**{**totals, "damage": jnp.asarray(damage)}) for damage in (2.0, 8.0, 0.0)]
        >>> response_metrics(*scores).damage_prevented
        0.75
    """
    damage, most, least = (_total(score, "damage") for score in (policy, always_allow, oracle))
    benign, campaigns = _total(policy, "benign"), _total(policy, "campaigns")
    contained = _total(policy, "contained")
    lost = _ratio(_total(policy, "benign_lost"), benign)
    blocks = _ratio(_total(policy, "false_blocks"), benign)
    alerts = _ratio(_total(policy, "alerts"), _total(policy, "duration_s"))
    return ResponseMetrics(
        damage_prevented=_ratio(most - damage, most - least),
        availability=None if lost is None else 1.0 - lost,
        time_to_contain_s=_ratio(_total(policy, "contain_s"), contained),
        contained_share=_ratio(contained, campaigns),
        campaigns=round(campaigns),
        censored=round(campaigns - contained),
        false_blocks_per_million=None if blocks is None else 1e6 * blocks,
        alerts_per_day=None if alerts is None else _DAY_S * alerts,
    )


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
    severity = _severity(positive)
    votes = _checked("vote", votes, -1, N_VERDICTS - 1)
    if votes.ndim != 2:
        raise DataError(f"votes have {votes.ndim} axes; expected two: event and member")
    received = votes >= 0
    some = received.any(axis=1)
    highest = votes.max(axis=1, initial=-1)
    lowest = np.where(received, votes, N_VERDICTS).min(axis=1, initial=N_VERDICTS)
    correlations: list[float] = []
    if label is not None:
        label = _checked("label", label, -1, 1)
        _same_length(votes=votes, label=label)
        wrong = ((votes >= severity) != (label == 1)[:, None]).astype(np.float64)
        for i, j in combinations(range(votes.shape[1]), 2):
            both = received[:, i] & received[:, j] & (label >= 0)
            value = _correlation(wrong[both, i], wrong[both, j])
            correlations += [] if value is None else [value]
    return CommitteeMetrics(
        agreement=_ratio(int((some & (highest == lowest)).sum()), int(some.sum())),
        error_correlation=float(np.mean(correlations)) if correlations else None,
        abstain=_ratio(int((~received).sum()), votes.size),
    )


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
