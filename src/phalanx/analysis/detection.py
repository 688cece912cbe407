"""How well verdicts and scores tell malicious from benign events, at the base rate of the sample or at a true one.

NumPy only. Undefined values are ``None`` (JSON null), never a silent 0 or NaN; each function says when.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from phalanx.analysis.checks import ratio, same_length, severity, weights, whole_numbers
from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.types import N_VERDICTS

__all__ = [
    "THRESHOLD_METRICS",
    "Detection",
    "StratumWeights",
    "Threshold",
    "average_precision",
    "base_rate_weights",
    "best_threshold",
    "detection_metrics",
]


@dataclass(frozen=True)
class Detection:
    """How well verdicts tell malicious from benign events; rows of unknown label are left out.

    The four counts are numbers of rows. Where rows have weights, all rates are computed from sums of weights instead.

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
        false_alarms_per_million: benign events flagged, per million benign events; ``None`` without benign events.
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
    false_alarms_per_million: float | None
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


class StratumWeights(NamedTuple):
    """What an event or an episode of each stratum counts for; the two add up to 1.

    Attributes:
        peaceful: of the stratum without attacks.
        attack: of the stratum with attacks.
    """

    peaceful: float
    attack: float


def base_rate_weights(
    malicious: float, events: float, peaceful_events: float, base_rate: float
) -> StratumWeights:
    r"""Weights that bring a stratified sample to a base rate.

    With M malicious among E events of the attack stratum and P events of the peaceful one, the weights
    :math:`w_a : w_p = rP : (M - rE)` solve :math:`w_a M / (w_a E + w_p P) = r`.

    An answer changes how many events follow, so count the events under one policy (always-allow) and use the weights
    for all: then every policy is measured in the same mixture of episodes.

    Args:
        malicious: malicious events of the attack stratum, > 0.
        events: all events of the attack stratum, of known label.
        peaceful_events: events of the peaceful stratum, > 0.
        base_rate: malicious share wanted, in (0, malicious / events].

    Raises:
        DataError: counts that cannot be.
        UsageError: a base rate above the attack stratum's own share: peaceful episodes can only lower it.

    Example:
        >>> peaceful, attack = base_rate_weights(malicious=100, events=1_000, peaceful_events=1_000, base_rate=0.01)
        >>> round(100 * attack / (1_000 * attack + 1_000 * peaceful), 12)
        0.01

    Source:
        Horvitz and Thompson (1952), "A generalization of sampling without replacement from a finite universe":
        weights are inverse to the probability of being drawn.
    """
    if not 0 < malicious <= events or not 0 < peaceful_events < np.inf:
        raise DataError(
            f"malicious={malicious}, events={events}, peaceful_events={peaceful_events}; expected "
            "0 < malicious <= events and at least one peaceful event. Simulate more episodes of each stratum"
        )
    share = malicious / events
    if not 0.0 < base_rate <= share:
        raise UsageError(
            f"base_rate={base_rate}; expected more than 0 and at most {share:.6g}, the malicious share of the "
            "episodes with attacks. Ask for a lower rate or simulate episodes with more attacks"
        )
    # the clip: at the stratum's own share, rounding may leave the difference just below 0
    peaceful, attack = max(malicious - base_rate * events, 0.0), base_rate * peaceful_events
    return StratumWeights(peaceful / (peaceful + attack), attack / (peaceful + attack))


_Counts = Float[np.ndarray, " cut"]


def _curve(
    label: np.ndarray, score: np.ndarray, weight: Float[np.ndarray, " event"]
) -> tuple[_Counts, _Counts, _Counts]:
    """Distinct scores in falling order with the true and false positives of ``score >= cut``; O(n log n)."""
    if not np.isfinite(score).all():
        row = int(np.flatnonzero(~np.isfinite(score))[0])
        raise DataError(
            f"score={score[row]} at known row {row}; expected a finite number. Look for NaN upstream"
        )
    order = np.argsort(-score, kind="stable")
    score, weight, hit = score[order], weight[order], label[order] == 1
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # last row of each group of ties
    # two sums, not one and a difference: a difference would leave rounding where there are no false positives
    return score[last], np.cumsum(weight * hit)[last], np.cumsum(weight * ~hit)[last]


def _known(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " event"]]:
    """The rows that count: of known label and some weight."""
    label, score = whole_numbers("label", label, -1, 1), np.asarray(score, np.float64)
    same_length(label=label, score=score)
    weight = weights(weight, len(label))
    known = (label >= 0) & (weight > 0)
    return label[known], score[known], weight[known]


def average_precision(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float | None:
    r"""Area under the precision-recall curve as a sum of steps, :math:`\sum_k (R_k - R_{k-1}) P_k`.

    Args:
        label: 1 malicious, 0 benign, -1 unknown (left out), one per event.
        score: larger means more suspicious, finite, one per event.
        weight: what each event counts for, >= 0; each 1 by default.

    Returns:
        A value in [0, 1], about the (weighted) base rate for random scores; ``None`` without malicious events.

    Raises:
        DataError: a label, score or weight out of range.

    Example:
        >>> average_precision([0, 1, 1], [0.1, 0.9, 0.8])
        1.0
        >>> average_precision([0, 1], [0.9, 0.8], weight=[3.0, 1.0])
        0.25

    Source:
        Davis and Goadrich (2006), "The relationship between precision-recall and ROC curves": linear
        interpolation between points would be too optimistic, so there is none.
    """
    label, score, weight = _known(label, score, weight)
    if not (label == 1).any():
        return None
    _, tp, fp = _curve(label, score, weight)
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


def _rates(tp: float, tn: float, fp: float, fn: float) -> dict[str, float | None]:
    """The rates of ``Detection`` from counts or sums of weights."""
    threats, benign = tp + fn, tn + fp
    precision, alarms = ratio(tp, tp + fp), ratio(fp, benign)
    return {
        "precision": 0.0 if precision is None and threats else precision,
        "recall": ratio(tp, threats),
        "f1": 2.0 * tp / (2.0 * tp + fp + fn) if threats else None,
        "mcc": _mcc(tp, tn, fp, fn),
        "base_rate": ratio(threats, threats + benign),
        "false_alarms_per_million": None if alarms is None else 1e6 * alarms,
    }


def detection_metrics(
    label: ArrayLike,
    verdict: ArrayLike,
    score: ArrayLike | None = None,
    *,
    positive: str = "alert",
    weight: ArrayLike | None = None,
) -> Detection:
    """Counts and rates of verdicts against labels.

    Args:
        label: 1 malicious, 0 benign, -1 unknown, one per event.
        verdict: 0..3, one per event.
        score: larger means more suspicious, one per event; needed for ``pr_auc`` only.
        positive: ``alert`` counts verdicts >= alert as positive, ``restrict`` those >= block.
        weight: what each event counts for in the rates, >= 0; each 1 by default. With ``base_rate_weights`` the rates
            are those at a true base rate.

    Raises:
        DataError: a value out of range, or columns of different length.
        UsageError: another name for ``positive``.

    Example:
        >>> found = detection_metrics([1, 1, 0, 0, -1], [3, 0, 1, 0, 2])
        >>> found.tp, found.fn, found.fp, found.tn, found.unknown, found.f1
        (1, 1, 1, 1, 1, 0.5)
        >>> detection_metrics([1, 0, 0], [1, 1, 0], weight=[0.1, 0.9, 0.9]).precision
        0.1
    """
    mildest = severity(positive)
    label = whole_numbers("label", label, -1, 1)
    verdict = whole_numbers("verdict", verdict, 0, N_VERDICTS - 1)
    same_length(label=label, verdict=verdict)
    heavy = weights(weight, len(label))
    flagged = verdict >= mildest
    cells: dict[str, Bool[np.ndarray, " event"]] = {
        "tp": flagged & (label == 1),
        "tn": ~flagged & (label == 0),
        "fp": flagged & (label == 0),
        "fn": ~flagged & (label == 1),
    }
    return Detection(
        tp=int(cells["tp"].sum()),
        tn=int(cells["tn"].sum()),
        fp=int(cells["fp"].sum()),
        fn=int(cells["fn"].sum()),
        **_rates(**{name: float(heavy[rows].sum()) for name, rows in cells.items()}),
        pr_auc=None if score is None else average_precision(label, score, weight),
        unknown=int((label < 0).sum()),
    )


def _f1(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    return 2.0 * tp / (tp + fp + threats)


def _mcc_curve(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    flagged = tp + fp
    kept = np.maximum(threats + benign - flagged, 0.0)  # with weights, rounding may leave less than nothing
    scale = np.sqrt(flagged) * np.sqrt(threats) * np.sqrt(benign) * np.sqrt(kept)
    return np.divide(tp * benign - fp * threats, scale, out=np.zeros_like(tp), where=scale > 0)


def _balanced_accuracy(tp: _Counts, fp: _Counts, threats: float, benign: float) -> _Counts:
    return 0.5 * (tp / threats + 1.0 - (fp / benign if benign else 0.0 * fp))


THRESHOLD_METRICS: dict[str, Callable[[_Counts, _Counts, float, float], _Counts]] = {
    "f1": _f1,
    "mcc": _mcc_curve,
    "balanced_accuracy": _balanced_accuracy,
}
"""Metrics that a threshold can be chosen by; each maps (tp, fp, malicious, benign) per cut to its value."""


def best_threshold(
    label: ArrayLike, score: ArrayLike, metric: str = "f1", *, weight: ArrayLike | None = None
) -> Threshold:
    """The exact best operating point of a score, for *validation* data only.

    Looks at every distinct score and at "flag nothing"; among equals the highest (fewest alerts) wins. The threshold
    lies midway to the next lower score: another program may compute a score anew that differs in the last bit.

    Args:
        label: 1 malicious, 0 benign, -1 unknown (left out), one per event.
        score: larger means more suspicious, finite, one per event.
        metric: a name of ``THRESHOLD_METRICS``.
        weight: what each event counts for, >= 0; each 1 by default.

    Raises:
        DataError: no malicious event, or values out of range.
        UsageError: another metric.

    Example:
        >>> best_threshold([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.9])
        Threshold(threshold=0.25, value=0.8)
    """
    if metric not in THRESHOLD_METRICS:
        raise unknown_name("threshold metric", metric, THRESHOLD_METRICS)
    label, score, weight = _known(label, score, weight)
    if not (label == 1).any():
        raise DataError(
            f"label: none of {len(label)} known validation rows is malicious, so no threshold fits. "
            "Use a validation part with malicious events, or a stratified or group split"
        )
    cut, tp, fp = _curve(label, score, weight)
    cut[:-1] = 0.5 * (cut[:-1] + cut[1:])
    threats, benign = float(tp[-1]), float(fp[-1])
    cut, tp, fp = (np.concatenate([[first], rest]) for first, rest in ((np.inf, cut), (0.0, tp), (0.0, fp)))
    values = THRESHOLD_METRICS[metric](tp, fp, threats, benign)
    best = int(np.argmax(values))  # the first maximum: the highest threshold
    return Threshold(float(cut[best]), float(values[best]))
