"""How long campaigns go on before they are contained, those that never were included.

A mean over contained campaigns favours the policy that contains only the easy ones. Here a campaign that was not
contained counts as followed until the episode's end (right-censored), and weighs on the curve as long as it was seen.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from phalanx.analysis.checks import same_length, weights, whole_numbers
from phalanx.errors import DataError, UsageError

__all__ = ["Containment", "SurvivalCurve", "containment_times", "kaplan_meier"]


@dataclass(frozen=True)
class Containment:
    """One entry per campaign, in the order of episodes and, within one, of onsets.

    Attributes:
        time_s: from the onset to the containment, or to the episode's end where there was none, in s.
        contained: whether it was contained; the others are censored.
        episode: index of its episode, to look up the episode's weight.
    """

    time_s: Float[np.ndarray, " campaign"]
    contained: Bool[np.ndarray, " campaign"]
    episode: Int[np.ndarray, " campaign"]


@dataclass(frozen=True)
class SurvivalCurve:
    """Share of campaigns not contained, a step function that falls at the times listed and is 1 before them.

    Attributes:
        time_s: distinct times to containment, rising, in s.
        survival: share that goes on after each of them.
        low: lower end of the pointwise interval.
        high: upper end of it.
        at_risk: campaigns still followed just before each of them, a plain count.
        subjects: campaigns with any weight.
        contained: those of them that were contained.
        last_s: the longest time that any campaign was followed, in s; nothing is known beyond it.
    """

    time_s: Float[np.ndarray, " step"]
    survival: Float[np.ndarray, " step"]
    low: Float[np.ndarray, " step"]
    high: Float[np.ndarray, " step"]
    at_risk: Int[np.ndarray, " step"]
    subjects: int
    contained: int
    last_s: float

    @property
    def median_s(self) -> float | None:
        """The first time after which at most half go on, in s; ``None`` where the curve stays above one half."""
        # the margin: a product of weighted shares that equals one half may be rounded to just above it
        below = np.flatnonzero(self.survival <= 0.5 + 1e-12)
        return float(self.time_s[below[0]]) if below.size else None

    def restricted_mean_s(self, horizon_s: float) -> float | None:
        r"""Mean time to containment where every time is cut at a horizon: :math:`\int_0^h S(t) dt`.

        Args:
            horizon_s: the same for all policies that are compared, > 0, in s.

        Returns:
            A time of at most ``horizon_s``, in s; ``None`` where the horizon lies beyond ``last_s`` while campaigns
            still go on: the curve is not known there.

        Raises:
            UsageError: a horizon that is not positive.

        Example:
            >>> curve = kaplan_meier([10.0, 20.0, 60.0], [1, 1, 0])
            >>> curve.restricted_mean_s(30.0), curve.restricted_mean_s(90.0)
            (20.0, None)

        Source:
            Royston and Parmar (2013), "Restricted mean survival time: an alternative to the hazard ratio".
        """
        if not horizon_s > 0:
            raise UsageError(f"horizon_s={horizon_s}; expected a time above 0 s")
        goes_on = self.survival[-1] > 0 if self.survival.size else True
        if horizon_s > self.last_s and goes_on:
            return None
        edges = np.concatenate([[0.0], np.minimum(self.time_s, horizon_s), [horizon_s]])
        return float((np.diff(edges) * np.concatenate([[1.0], self.survival])).sum())


def kaplan_meier(
    time_s: ArrayLike, contained: ArrayLike, *, weight: ArrayLike | None = None, level: float = 0.95
) -> SurvivalCurve | None:
    r"""The product-limit estimate :math:`S(t) = \prod_{t_j \le t} (1 - d_j / n_j)` with right censoring.

    Of campaigns that are censored at a time when others are contained, all count as at risk. The pointwise interval is
    Greenwood's on the scale of log(-log S), which keeps it within [0, 1]; with weights, the number at risk in its
    variance is the effective one, (sum of weights)^2 / sum of squared weights, so that scaling all weights changes
    nothing. Where the curve reaches 0 that variance has no value: the upper end of the step before holds there too.

    The estimate takes censoring to say nothing about what would have followed. A campaign that reaches its goal ends
    its episode and is censored there, though it would never have been contained: the curve is that of containment as
    if goals were not reached, and flatters a policy that lets fast campaigns through. Read it beside the losses.

    Args:
        time_s: from onset to containment or to the end of sight, finite and >= 0, one per campaign, in s.
        contained: 1 contained, 0 censored, one per campaign.
        weight: what each campaign counts for, >= 0; each 1 by default.
        level: coverage asked for at each time, in (0, 1).

    Returns:
        The curve; ``None`` without campaigns of any weight.

    Raises:
        DataError: a value out of range, or columns of different length.
        UsageError: ``level`` out of range.

    Example:
        >>> curve = kaplan_meier([10.0, 20.0, 20.0, 30.0], [1, 1, 0, 1])
        >>> curve.survival.tolist(), curve.median_s
        ([0.75, 0.5, 0.0], 20.0)

    Source:
        Kaplan and Meier (1958), "Nonparametric estimation from incomplete observations"; Kalbfleisch and Prentice
        (2002), "The statistical analysis of failure time data", section 1.4, for the interval; Xie and Liu (2005),
        "Adjusted Kaplan-Meier estimator and log-rank test with inverse probability of treatment weighting for
        survival data", for the weights.
    """
    if not 0.0 < level < 1.0:
        raise UsageError(f"level={level}; expected a coverage between 0 and 1")
    times, events, heavy = _followed(time_s, contained, weight)
    if not times.size:
        return None
    steps, at_risk, hazard, variance = _steps(times, events, heavy)
    survival = np.cumprod(1.0 - hazard)
    low, high = _log_log(survival, np.cumsum(variance), level)
    return SurvivalCurve(
        time_s=steps,
        survival=survival,
        low=low,
        high=high,
        at_risk=at_risk,
        subjects=int(times.size),
        contained=int(events.sum()),
        last_s=float(times[-1]),
    )


_PerCampaign = Float[np.ndarray, " campaign"]
_PerStep = Float[np.ndarray, " step"]


def _followed(
    time_s: ArrayLike, contained: ArrayLike, weight: ArrayLike | None
) -> tuple[_PerCampaign, Bool[np.ndarray, " campaign"], _PerCampaign]:
    """Checked columns of the campaigns with any weight, in the order of time."""
    times, events = np.asarray(time_s, np.float64), whole_numbers("contained", contained, 0, 1) == 1
    same_length(time_s=times, contained=events)
    heavy = weights(weight, len(times))
    bad = np.flatnonzero(~np.isfinite(times) | (times < 0))
    if bad.size:
        raise DataError(
            f"time_s={times[bad[0]]} at row {bad[0]}; expected a finite time >= 0. "
            "Give a campaign that was not contained the time until its episode's end"
        )
    order = np.argsort(times, kind="stable")
    order = order[heavy[order] > 0]
    return times[order], events[order], heavy[order]


def _steps(
    times: _PerCampaign, events: Bool[np.ndarray, " campaign"], heavy: _PerCampaign
) -> tuple[_PerStep, Int[np.ndarray, " step"], _PerStep, _PerStep]:
    """Distinct times of events: campaigns at risk, the share of them that ends there, and Greenwood's terms."""
    steps, which = np.unique(times[events], return_inverse=True)
    first = np.searchsorted(times, steps, side="left")
    at_risk = len(times) - first
    n_ended = np.bincount(which, minlength=len(steps))
    ended = np.bincount(which, weights=heavy[events], minlength=len(steps))
    risk, squares = (np.cumsum(w[::-1])[::-1][first] for w in (heavy, heavy**2))
    # by the counts: a quotient of two sums of weights that are all the same ones may miss 1 by rounding
    all_end = n_ended == at_risk
    hazard = np.where(all_end, 1.0, ended / risk)
    goes_on = np.where(all_end, np.nan, 1.0 - hazard)
    return steps, at_risk, hazard, hazard * squares / (risk**2 * goes_on)


def _log_log(survival: _PerStep, variance: _PerStep, level: float) -> tuple[_PerStep, _PerStep]:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    known = survival > 0
    logged = np.log(survival[known])
    half = z * np.sqrt(variance[known]) / -logged
    before = np.exp(logged[-1] * np.exp(-half[-1])) if logged.size else 1.0
    low, high = np.zeros_like(survival), np.full_like(survival, before)
    low[known], high[known] = np.exp(logged * np.exp(half)), np.exp(logged * np.exp(-half))
    return low, high


_Totals = Float[np.ndarray, "time env"]


def containment_times(
    *,
    campaigns: _Totals,
    contained: _Totals,
    contain_s: _Totals,
    duration_s: _Totals,
    live: Bool[np.ndarray, "time env"],
) -> Containment:
    """Times to containment from an episode's running totals, step by step.

    A rise of ``contained`` by k in one step, with a rise of ``contain_s`` by d, is taken as k campaigns contained after
    d / k seconds each: the totals do not tell them apart. A rise of ``campaigns`` is an onset at the step's
    ``duration_s``. A containment answers the event that the step before led to, and so belongs to that step's
    ``duration_s``; less its duration, this gives its onset. Each containment is matched with the onset nearest to
    that, the nearest pairs first. Onsets without a match are censored at the episode's last ``duration_s``; their
    times are exact to the gap between two events, for the step of an onset may end with the event after it.

    Args:
        campaigns: attempted so far.
        contained: contained so far.
        contain_s: sum of the times to containment so far, in s.
        duration_s: time covered so far, in s.
        live: whether the episode was still running at the step; later steps are left out.

    Raises:
        DataError: a total that falls, or more containments than campaigns.

    Example:
        >>> column = lambda *values: np.array(values)[:, None]
        >>> found = containment_times(
        ...     campaigns=column(1.0, 2.0, 2.0), contained=column(0.0, 0.0, 1.0), contain_s=column(0.0, 0.0, 10.0),
        ...     duration_s=column(10.0, 20.0, 35.0), live=np.ones((3, 1), bool),
        ... )
        >>> found.time_s.tolist(), found.contained.tolist()
        ([10.0, 15.0], [True, False])
    """
    totals = {
        "campaigns": campaigns,
        "contained": contained,
        "contain_s": contain_s,
        "duration_s": duration_s,
    }
    wide = {name: np.asarray(total, np.float64) for name, total in totals.items()}
    found = [
        _one_episode(env, **{name: total[live[:, env], env] for name, total in wide.items()})
        for env in range(live.shape[1])
    ]
    sizes = [len(time_s) for time_s, _ in found]
    return Containment(
        time_s=np.concatenate([np.zeros(0), *(time_s for time_s, _ in found)]),
        contained=np.concatenate([np.zeros(0, bool), *(stopped for _, stopped in found)]),
        episode=np.repeat(np.arange(len(sizes)), sizes),
    )


def _one_episode(
    env: int,
    *,
    campaigns: np.ndarray,
    contained: np.ndarray,
    contain_s: np.ndarray,
    duration_s: np.ndarray,
) -> tuple[_PerCampaign, Bool[np.ndarray, " campaign"]]:
    """Times and whether contained, by onset, in one episode."""
    onsets = _rises("campaigns", campaigns, env).round().astype(int)
    stops = _rises("contained", contained, env).round().astype(int)
    waited_s = _rises("contain_s", contain_s, env)
    if stops.sum() > onsets.sum():
        raise DataError(
            f"episode {env}: {stops.sum()} campaigns contained of {onsets.sum()} attempted; expected no more. "
            "Pass the environment's own totals"
        )
    onset_s = np.repeat(duration_s, onsets)
    stopped_s = np.repeat(np.concatenate([duration_s[:1], duration_s[:-1]]), stops)
    took_s = np.repeat(waited_s / np.maximum(stops, 1), stops)
    match = _nearest(onset_s, stopped_s - took_s)
    time_s = duration_s[-1:] - onset_s
    time_s[match] = took_s
    return time_s, np.isin(np.arange(len(onset_s)), match)


def _rises(name: str, total: np.ndarray, env: int) -> np.ndarray:
    rises = np.diff(total, prepend=0.0)
    if (rises < 0).any():
        t = int(np.argmax(rises < 0))
        raise DataError(
            f"{name} falls to {total[t]} at step {t} of episode {env}; expected a running total that only rises"
        )
    return rises


def _nearest(onset_s: np.ndarray, wanted_s: np.ndarray) -> Int[np.ndarray, " contained"]:
    """For each time wanted the index of its own onset: of all pairs left, the nearest is joined first."""
    distance = np.abs(onset_s[:, None] - wanted_s[None, :])
    match = np.zeros(len(wanted_s), int)
    for _ in range(len(wanted_s)):
        row, column = np.unravel_index(np.argmin(distance), distance.shape)
        match[column] = row
        distance[row, :] = np.inf
        distance[:, column] = np.inf
    return match
