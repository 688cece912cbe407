"""Split conformal prediction: a lower bound of an episode's final robustness that holds with a wanted probability."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import ArrayLike

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import number

__all__ = [
    "Calibration",
    "Resplits",
    "calibrate",
    "calibrate_scores",
    "conformal_quantile",
    "coverage",
    "nonconformity",
    "resplit_coverage",
    "smallest_calibration",
]


def conformal_quantile(
    scores: ArrayLike, delta: float, shift: float = 0.0, tie_break: float | None = None
) -> float:
    """The bound that the score of a new episode keeps with probability 1 - delta.

    Of n scores the k-th smallest, ``k = ceil((n + 1)(1 - delta + shift))``, and +inf where k > n: among n + 1
    exchangeable scores the new one has each rank alike, so that it is among the first k with probability
    ``k / (n + 1) >= 1 - delta + shift``. Where its law is another one, at most the distance of both is lost.
    Numbers count as they are written: ``delta`` .1 is one tenth, not the binary number nearest to it.

    Args:
        scores: one an episode, in any order; the larger the worse; infinities are values.
        delta: probability that the bound may fail, in (0, 1).
        shift: greatest total variation distance, ``max_A |P(A) - Q(A)|``, between the law of the calibration scores
            and that of the new one, in [0, delta).
        tie_break: a number drawn uniformly from [0, 1), by which equal scores are ranked at random: the probability,
            over this draw too, is k / (n + 1) also where there are ties, which else raise it. The bound is then now and
            then the number next below the k-th score.

    Raises:
        UsageError: ``delta``, ``shift`` or ``tie_break`` outside its range.
        DataError: a score that is NaN or no number, none at all, more than one dimension.

    Example:
        >>> conformal_quantile([4, 1, 3, 2], 0.2), conformal_quantile([4, 1, 3, 2], 0.4)
        (4.0, 3.0)
        >>> conformal_quantile([4, 1, 3, 2], 0.1)
        inf

    Source: Lindemann et al., "Conformal prediction for STL runtime verification", ICCPS 2023, 2211.01539; Zhao et
    al., "Robust conformal prediction for STL runtime verification under distribution shift", ICCPS 2024, 2311.09482:
    its lemma takes the quantile at the level (1 + 1/n) g^-1(1 - delta), and for total variation g^-1 adds the shift.
    (Cauchois et al., "Robust validation", 2008.04267, without 1 + 1/n in the level, falls short by as much.) Ties:
    Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005 (smoothed conformal predictors).
    """
    values = _numbers("scores", scores)
    if tie_break is not None and not 0.0 <= number(tie_break) < 1.0:
        raise UsageError(f"tie_break {tie_break!r}: expected a number from 0 to below 1")
    bound, share = _bound(values, delta, shift)
    return bound if tie_break is None or tie_break < share else float(np.nextafter(bound, -math.inf))


def _bound(scores: Float[np.ndarray, " n"], delta: float, shift: float) -> tuple[float, float]:
    """The k-th score, and the probability that an equal one ranks before it if equal ones are ranked at random."""
    n = scores.size
    rank = n + 1 - math.floor((n + 1) * _margin(delta, shift))
    if rank > n:
        return math.inf, 1.0
    bound = float(np.partition(scores, rank - 1)[rank - 1])
    return bound, (rank - int(np.sum(scores < bound))) / (int(np.sum(scores == bound)) + 1)


def smallest_calibration(delta: float, shift: float = 0.0) -> int:
    """Episodes without which the bound is infinite: ``ceil(1 / (delta - shift)) - 1``.

    Example:
        >>> [smallest_calibration(delta) for delta in (0.05, 0.1, 0.2)], smallest_calibration(0.1, shift=0.05)
        ([19, 9, 4], 19)
    """
    return math.ceil(1 / _margin(delta, shift)) - 1


def _margin(delta: float, shift: float) -> Fraction:
    """What may fail beside the shift, exactly; 0.1 - 0.05 is more than 0.05 in floating point."""
    if not 0.0 < number(delta) < 1.0:
        raise UsageError(
            f"delta {delta!r}: expected the probability of a failure, more than 0 and less than 1"
        )
    if not 0.0 <= number(shift) < delta:
        raise UsageError(
            f"shift {shift!r}: expected a total variation distance from 0 to below delta, {delta!r}; with that of "
            "delta or more no number of episodes gives a finite bound"
        )
    return Fraction(str(float(delta))) - Fraction(str(float(shift)))


@dataclass(frozen=True)
class Calibration:
    """What was calibrated: a new episode's score is at most ``radius`` with probability ``guaranteed``.

    Attributes:
        radius: the conformal quantile of the scores.
        n: episodes that it was taken from.
        delta, shift: see ``conformal_quantile``.
    """

    radius: float
    n: int
    delta: float
    shift: float = 0.0

    @property
    def guaranteed(self) -> float:
        """The probability, over calibration and new episode: k / (n + 1) - shift, 1 - delta or a little more."""
        failures = math.floor((self.n + 1) * _margin(self.delta, self.shift))
        return float(1 - Fraction(failures, self.n + 1) - Fraction(str(float(self.shift))))

    def lower(self, predicted: ArrayLike) -> Float[np.ndarray, " episode"]:
        """Lower bounds of the final robustness: predicted - radius, -inf where nothing is known.

        Args:
            predicted: one value an episode, made as those of the calibration were.
        """
        values = _numbers("predicted", predicted)
        if self.radius == math.inf:
            return np.full_like(values, -math.inf)
        return np.where(values == -math.inf, values, values - np.where(np.isinf(values), 0.0, self.radius))

    def satisfied(self, predicted: ArrayLike) -> Bool[np.ndarray, " episode"]:
        """Whether each episode will satisfy the formula (its final robustness will be 0 or more).

        False means that it cannot be said, not that the episode will fail. That an episode is True and yet fails has
        at most probability ``1 - guaranteed``; among those that are True failures may be more frequent.
        """
        return self.lower(predicted) >= 0.0

    def verdict(self, predicted: ArrayLike) -> Shaped[np.ndarray, " episode"]:
        """``satisfied`` in words: "will hold" or "cannot say"."""
        return np.where(self.satisfied(predicted), "will hold", "cannot say")


def nonconformity(predicted: ArrayLike, actual: ArrayLike) -> Float[np.ndarray, " episode"]:
    """How far each episode fell below what was predicted: predicted - actual, 0 where both are the same infinity.

    Raises:
        DataError: NaN, no numbers, shapes that differ, more than one dimension.

    Example:
        >>> nonconformity([1, 2, float("inf")], [3, 0, float("inf")])
        array([-2.,  2.,  0.])
    """
    one, other = _numbers("predicted", predicted), _numbers("actual", actual)
    if one.shape != other.shape:
        raise DataError(
            f"{one.size} predicted and {other.size} actual values; expected one of each an episode"
        )
    return np.subtract(one, other, out=np.zeros_like(one), where=one != other)


def calibrate(predicted: ArrayLike, actual: ArrayLike, delta: float, shift: float = 0.0) -> Calibration:
    """Calibrates a prediction of final robustness: ``P(final >= predicted - radius) >= 1 - delta``.

    Any prediction will do, such as the robustness of the episode so far, as long as the rule that makes it was fixed
    before these episodes were seen. Swap signs of both for an upper bound.

    Args:
        predicted, actual: one value an episode, exchangeable with those to come: whole episodes, never steps of one.
        delta, shift: see ``conformal_quantile``.

    Raises:
        UsageError: ``delta`` or ``shift`` outside its range.
        DataError: NaN, shapes that differ, fewer episodes than ``smallest_calibration``.

    Example:
        >>> calibration = calibrate([1, 2, 3, 4], [1.5, 1, 3, 2], delta=0.2)
        >>> calibration.radius, calibration.guaranteed
        (2.0, 0.8)
        >>> calibration.lower([1, 5]), calibration.verdict([1, 5])
        (array([-1.,  3.]), array(['cannot say', 'will hold'], dtype='<U10'))

    Source: Lindemann et al., ICCPS 2023, 2211.01539 (the direct method).
    """
    return calibrate_scores(nonconformity(predicted, actual), delta, shift)


def calibrate_scores(scores: ArrayLike, delta: float, shift: float = 0.0) -> Calibration:
    """Like ``calibrate``, for scores of any kind, one an episode."""
    values = _numbers("scores", scores)
    _check_enough(values.size, delta, shift)
    return Calibration(conformal_quantile(values, delta, shift), values.size, delta, shift)


def _check_enough(episodes: int, delta: float, shift: float) -> None:
    least = smallest_calibration(delta, shift)
    if episodes < least:
        beside = f" and shift {shift!r}" if shift else ""
        raise DataError(
            f"{episodes} episodes to calibrate on; delta {delta!r}{beside} needs {least} or more: "
            "add episodes, or raise delta"
        )


def coverage(actual: ArrayLike, lower: ArrayLike) -> float:
    """Share of episodes whose final robustness is at or above its lower bound.

    Example:
        >>> coverage([1, 2, 3, 4], [0, 2, 5, float("-inf")])
        0.75
    """
    return float(np.mean(nonconformity(lower, actual) <= 0.0))


@dataclass(frozen=True)
class Resplits:
    """Coverage over random splits of the same episodes.

    Attributes:
        mean, std, least: of the coverage of the episodes that were not calibrated on.
        error: standard error of the mean.
    """

    mean: float
    std: float
    least: float
    error: float


def resplit_coverage(
    predicted: ArrayLike,
    actual: ArrayLike,
    delta: float,
    calibration_n: int,
    resplits: int = 1000,
    seed: int = 0,
    shift: float = 0.0,
    *,
    break_ties: bool = False,
) -> Resplits:
    """Coverage measured by splitting episodes at random into those to calibrate on and those to test, again and again.

    Without ties the number of m test episodes that are covered is beta-binomial, BetaBin(m, k, n + 1 - k), whatever
    the episodes are; its mean k / (n + 1) lies in [1 - delta + shift, 1 - delta + shift + 1 / (n + 1)]. Ties raise it.

    Args:
        predicted, actual, delta, shift: see ``calibrate``.
        calibration_n: episodes to calibrate on, n; the rest is tested.
        resplits: how often.
        seed: of the splits.
        break_ties: whether ties are broken at random (``conformal_quantile``); the coverage is its mean over the draw.

    Raises:
        UsageError, DataError: those of ``calibrate``; no episode left to test; ``resplits`` below 2.

    Source: Angelopoulos and Bates, "A gentle introduction to conformal prediction", 2107.07511, section 3.2 and
    appendix C.
    """
    scores = nonconformity(predicted, actual)
    _check_enough(calibration_n, delta, shift)
    if calibration_n >= scores.size:
        raise DataError(f"{scores.size} episodes; {calibration_n} to calibrate on leave none to test")
    if resplits < 2:
        raise UsageError(f"resplits {resplits}: expected 2 or more")
    rng = np.random.default_rng(seed)
    covered = np.empty(resplits)
    for split in range(resplits):
        mixed = rng.permutation(scores)
        radius, share = _bound(mixed[:calibration_n], delta, shift)
        tested = mixed[calibration_n:]
        covered[split] = np.mean(tested < radius) + np.mean(tested == radius) * (share if break_ties else 1.0)
    std = float(covered.std(ddof=1))
    return Resplits(float(covered.mean()), std, float(covered.min()), std / math.sqrt(resplits))


def _numbers(what: str, values: ArrayLike) -> Float[np.ndarray, " episode"]:
    """One float64 an episode."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: expected numbers: {error}") from None
    if array.ndim != 1 or not array.size:
        shape = "x".join(map(str, array.shape)) or "scalar"
        raise DataError(f"{what}: expected one value an episode, at least one; the shape is {shape}")
    missing = np.flatnonzero(np.isnan(array))
    if missing.size:
        raise DataError(
            f"{what}: NaN at episode {missing[0]} ({missing.size} in all); leave these episodes out, and count them"
        )
    return array
