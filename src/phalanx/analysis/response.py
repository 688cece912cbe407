"""What verdicts did to attacks, to benign work and to the analysts, from the totals of closed-loop episodes.

NumPy only. Undefined values are ``None`` (JSON null), never a silent 0 or NaN; each function says when.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from phalanx.analysis.checks import ratio, weights
from phalanx.errors import DataError, UsageError
from phalanx.types import Score

__all__ = ["Budget", "ResponseMetrics", "cvar", "response_metrics"]

_DAY_S = 86_400.0
_SHIFT_S = 28_800.0
_TAIL = 0.05


@dataclass(frozen=True)
class Budget:
    """What an operator can bear.

    An analyst with a service time of 120 s works 240 tickets in a shift of 8 h, when doing nothing else and never
    waiting. The default of 100 keeps 42 % of the shift busy with tickets: the rest is for what tickets lead to, and
    tickets wait 0.71 service times on average (a queue with random arrivals and one server waits rho / (1 - rho)).

    Attributes:
        availability: least share of benign events that must be let through, in [0, 1].
        alerts_per_analyst_day: most tickets per analyst and shift of 8 h, > 0.

    Raises:
        UsageError: a bound out of range.

    Source:
        Kleinrock (1975), "Queueing Systems", volume 1, section 3.2: the waiting time of M/M/1.
    """

    availability: float = 0.995
    alerts_per_analyst_day: float = 100.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.availability <= 1.0 or not self.alerts_per_analyst_day > 0.0:
            raise UsageError(f"{self}; expected an availability from 0 to 1 and more than 0 alerts")


@dataclass(frozen=True)
class ResponseMetrics:
    """What the verdicts did to attacks, to benign work and to the analysts; means over episodes are weighted.

    Attributes:
        damage_prevented: (damage of always-allow - damage) / (damage of always-allow - damage of the oracle);
            not clipped: below 0 is worse than doing nothing; ``None`` where the oracle prevents nothing.
        availability: 1 - benign events lost / benign events; ``None`` without benign events.
        time_to_contain_s: mean over the *contained* campaigns, in s; ``None`` when none was. The others are
            censored: the mean says nothing about them, so read it with ``contained_share``.
        contained_share: contained campaigns / campaigns; ``None`` without campaigns.
        campaigns: campaigns with at least one attempted event, a plain count.
        censored: campaigns that were not contained before the episode's end, a plain count.
        false_blocks_per_million: benign events answered with block or quarantine, per million benign events.
        alerts_per_day: tickets opened per 24 h of covered time; ``None`` where no time is covered.
        loss: mean loss of an episode, in units of damage; ``None`` without episodes.
        normalised_score: (loss of always-allow - loss) / (loss of always-allow - loss of the oracle); 0 is doing
            nothing, 1 the oracle; not clipped; ``None`` where the oracle saves nothing.
        cvar_loss: mean loss of the worst 5 % of episodes; ``None`` without episodes.
        furthest_stage: mean number of attack stages entered, over the episodes that are attacked under always-allow
            (the same ones for every policy); ``None`` where there are none.
        alerts_per_analyst_day: tickets opened per analyst and shift of 8 h; ``None`` where no time is covered or
            the number of analysts is not given.
        availability_violations: share of episodes with benign events whose availability is below the budget's.
        alert_violations: share of episodes whose tickets per analyst and shift exceed the budget's; ``None`` as in
            ``alerts_per_analyst_day``. A short episode exceeds it with few tickets.
    """

    damage_prevented: float | None
    availability: float | None
    time_to_contain_s: float | None
    contained_share: float | None
    campaigns: int
    censored: int
    false_blocks_per_million: float | None
    alerts_per_day: float | None
    loss: float | None
    normalised_score: float | None
    cvar_loss: float | None
    furthest_stage: float | None
    alerts_per_analyst_day: float | None
    availability_violations: float | None
    alert_violations: float | None


_PerEpisode = Float[np.ndarray, " episode"]


def cvar(loss: ArrayLike, weight: ArrayLike | None = None, *, tail: float = _TAIL) -> float | None:
    """Conditional value at risk: the mean loss of the worst share of episodes.

    The episode on the border counts with the part of its weight that fits. A tail of 1 is the mean; a tail of less
    than one episode is the maximum.

    Args:
        loss: one per episode, finite.
        weight: what each episode counts for, >= 0; each 1 by default.
        tail: the share, in (0, 1].

    Returns:
        A loss, or ``None`` where no episode has any weight.

    Raises:
        DataError: a loss or weight out of range.
        UsageError: ``tail`` out of range.

    Example:
        >>> cvar([1.0, 2.0, 3.0, 10.0], tail=0.5), cvar([1.0, 10.0], [3.0, 1.0], tail=0.5)
        (6.5, 5.5)

    Source:
        Rockafellar and Uryasev (2000), "Optimization of conditional value-at-risk"; with atoms as in their
        "Conditional value-at-risk for general loss distributions" (2002), section 5.
    """
    if not 0.0 < tail <= 1.0:
        raise UsageError(f"tail={tail}; expected a share above 0 and at most 1")
    losses = np.asarray(loss, np.float64)
    if losses.ndim != 1 or not np.isfinite(losses).all():
        raise DataError(f"loss={losses!r}; expected one finite number per episode")
    weight = weights(weight, len(losses))
    mass = tail * weight.sum()
    if mass <= 0:
        return None
    order = np.argsort(-losses, kind="stable")
    before = np.cumsum(weight[order]) - weight[order]
    taken = np.clip(mass - before, 0.0, weight[order])
    return float((taken * losses[order]).sum() / taken.sum())


def _of(score: Score, name: str) -> _PerEpisode:
    return np.asarray(getattr(score, name), np.float64).reshape(-1)


def _weighted_share(fault: Bool[np.ndarray, " episode"], weight: _PerEpisode) -> float | None:
    return ratio(float(weight[fault].sum()), float(weight.sum()))


def _availability_violations(policy: Score, weight: _PerEpisode, budget: Budget) -> float | None:
    benign, lost = _of(policy, "benign"), _of(policy, "benign_lost")
    # without a division: 1 - lost / benign < availability, an episode at the bound itself keeps it
    over = benign - lost < budget.availability * benign
    return _weighted_share(over, np.where(benign > 0, weight, 0.0))


def _alert_violations(policy: Score, weight: _PerEpisode, budget: Budget, analysts: int) -> float | None:
    shifts = analysts * _of(policy, "duration_s") / _SHIFT_S
    over = _of(policy, "alerts") > budget.alerts_per_analyst_day * shifts
    return _weighted_share(over, np.where(shifts > 0, weight, 0.0))


def _same_episodes(**scores: Score) -> int:
    lengths = {name: _of(score, "loss").size for name, score in scores.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise DataError(f"episodes differ in number: {listed}. Run the three on the same episodes")
    return next(iter(lengths.values()))


def response_metrics(
    policy: Score,
    always_allow: Score,
    oracle: Score,
    *,
    weight: ArrayLike | None = None,
    analysts: int | None = None,
    budget: Budget | None = None,
) -> ResponseMetrics:
    """The response of a policy, from the totals of closed-loop episodes with the same environment seeds.

    Args:
        policy: totals at the ends of episodes, any leading shape.
        always_allow: totals of the policy that allows everything, in the same episodes.
        oracle: totals of the policy that knows the labels, in the same episodes.
        weight: what each episode counts for, >= 0; each 1 by default. ``detection.base_rate_weights`` gives those of a
            stratified sample.
        analysts: who work on tickets side by side, >= 1; needed for tickets per analyst only.
        budget: what an operator can bear; ``Budget()`` by default.

    Raises:
        DataError: different numbers of episodes, or a weight out of range.
        UsageError: less than one analyst.

    Example:
        >>> import jax.numpy as jnp
        >>> totals = dict.fromkeys(Score.__dataclass_fields__, jnp.zeros(()))
        >>> scores = [Score(**{**totals, "damage": jnp.asarray(damage)}) for damage in (2.0, 8.0, 0.0)]
        >>> response_metrics(*scores).damage_prevented
        0.75
    """
    if analysts is not None and analysts < 1:
        raise UsageError(f"analysts={analysts}; expected at least 1, or None where the number is not known")
    budget = budget or Budget()
    w = weights(weight, _same_episodes(policy=policy, always_allow=always_allow, oracle=oracle))

    def total(name: str, score: Score = policy) -> float:
        return float((w * _of(score, name)).sum())

    def regained(name: str) -> float | None:
        most, least = total(name, always_allow), total(name, oracle)
        return ratio(most - total(name), most - least)

    attacked = np.where(_of(always_allow, "campaigns") > 0, w, 0.0)
    campaigns, contained = (float(_of(policy, name).sum()) for name in ("campaigns", "contained"))
    lost, blocks = (ratio(total(name), total("benign")) for name in ("benign_lost", "false_blocks"))
    alerts = ratio(total("alerts"), total("duration_s"))
    return ResponseMetrics(
        damage_prevented=regained("damage"),
        availability=None if lost is None else 1.0 - lost,
        time_to_contain_s=ratio(total("contain_s"), total("contained")),
        contained_share=ratio(total("contained"), total("campaigns")),
        campaigns=round(campaigns),
        censored=round(campaigns - contained),
        false_blocks_per_million=None if blocks is None else 1e6 * blocks,
        alerts_per_day=None if alerts is None else _DAY_S * alerts,
        loss=ratio(total("loss"), float(w.sum())),
        normalised_score=regained("loss"),
        cvar_loss=cvar(_of(policy, "loss"), w),
        furthest_stage=ratio(float((attacked * _of(policy, "furthest")).sum()), float(attacked.sum())),
        alerts_per_analyst_day=None if alerts is None or analysts is None else _SHIFT_S * alerts / analysts,
        availability_violations=_availability_violations(policy, w, budget),
        alert_violations=None if analysts is None else _alert_violations(policy, w, budget, analysts),
    )
