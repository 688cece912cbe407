"""The table of a league: what each policy reached in the same episodes, with intervals, from plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from phalanx.analysis.hierarchical import (
    TwoLevel,
    hierarchical_difference,
    hierarchical_summary,
    normalised_score,
)
from phalanx.analysis.metrics import average_precision, response_metrics
from phalanx.analysis.survival import Containment, containment_times, kaplan_meier
from phalanx.runtime.baselines import rates_of
from phalanx.runtime.episodes import Course
from phalanx.types import Score

__all__ = ["Field", "Outcome", "best_baseline", "gap_closed", "mean_of_known", "outcome_of", "standings"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one policy reached, seed by seed, in the same episodes.

    Attributes:
        scores: totals of each seed.
        times: its campaigns' times to containment.
        pr_auc: of its suspicion where nothing is answered; None where it has none.
        rates: how often each verdict was given, while episodes ran.
        trained: it is a trained committee, not a baseline.
        tuned: how each seed was tuned, for JSON.
    """

    scores: Sequence[Score]
    times: Sequence[Containment]
    pr_auc: Sequence[float | None]
    rates: Sequence[Float[np.ndarray, "4"]]
    trained: bool = False
    tuned: Sequence[Mapping[str, Any]] = ()

    @property
    def loss(self) -> Float[np.ndarray, "seed episode"]:
        """Loss of each seed and episode."""
        return np.stack([np.asarray(score.loss, np.float64) for score in self.scores])


@dataclass(frozen=True, eq=False)
class Field:
    """What all policies of a scenario share.

    Attributes:
        allow, oracle: totals of the two ends of the scale.
        weight: of each episode.
        quiet: which episodes are without attacks; each kind is resampled by itself.
        analysts: who work on tickets.
        horizon_s: of the restricted mean time to containment.
        plan: how to resample.
    """

    allow: Score
    oracle: Score
    weight: Float[np.ndarray, " episode"]
    quiet: Bool[np.ndarray, " episode"]
    analysts: int
    horizon_s: float
    plan: TwoLevel = field(default_factory=TwoLevel)

    def sampling(self) -> dict[str, Any]:
        """Arguments of the hierarchical bootstrap."""
        return {"weight": self.weight, "strata": self.quiet, "plan": self.plan}

    def losses(self, loss: Float[np.ndarray, "*seed episode"]) -> dict[str, np.ndarray]:
        """The losses that a normalised score is made of."""
        return {"loss": loss, "allow": np.asarray(self.allow.loss), "oracle": np.asarray(self.oracle.loss)}


def outcome_of(
    courses: Sequence[Course],
    watched: Sequence[Course | None],
    weight: Float[np.ndarray, " episode"],
    *,
    trained: bool = False,
    tuned: Sequence[Mapping[str, Any]] = (),
) -> Outcome:
    """Takes from courses what the table needs.

    Args:
        courses: of each seed.
        watched: the same seed's course with its answers only logged, None for a policy without suspicion.
        weight: of each episode.
        trained: see ``Outcome``.
        tuned: see ``Outcome``.
    """
    times = [
        containment_times(
            campaigns=c.campaigns, contained=c.contained, contain_s=c.contain_s, duration_s=c.duration_s, live=c.live
        )
        for c in courses
    ]  # fmt: skip
    found = [None if each is None else _pr_auc(each, weight) for each in watched]
    rates = [rates_of(course) for course in courses]
    return Outcome([course.score for course in courses], times, found, rates, trained, tuned)


def _pr_auc(course: Course, weight: np.ndarray) -> float | None:
    if course.suspicion is None:
        return None
    live = course.live
    heavy = np.broadcast_to(weight[None], live.shape)[live]
    return average_precision(course.label[live], course.suspicion[live], heavy)


def standings(outcomes: Mapping[str, Outcome], shared: Field) -> dict[str, dict[str, Any]]:
    """A row per policy: means over seeds of every figure, and the normalised score with its interval.

    Where there is a committee, every row but its own holds how much better the first committee did, paired episode by
    episode (and seed by seed, where both have as many seeds; otherwise a policy counts with its mean over seeds).

    Args:
        outcomes: by name, of the same episodes.
        shared: what they share.
    """
    rows = {name: _row(outcome, shared) for name, outcome in outcomes.items()}
    first = next((name for name, outcome in outcomes.items() if outcome.trained), None)
    if first is not None:
        for name, outcome in outcomes.items():
            if name != first:
                rows[name]["committee_gains"] = _gains(outcomes[first], outcome, shared)
    return rows


def _row(outcome: Outcome, shared: Field) -> dict[str, Any]:
    each = [
        asdict(
            response_metrics(
                score, shared.allow, shared.oracle, weight=shared.weight, analysts=shared.analysts
            )
        )
        for score in outcome.scores
    ]
    row: dict[str, Any] = {name: mean_of_known([figures[name] for figures in each]) for name in each[0]}
    row["score"] = hierarchical_summary(shared.losses(outcome.loss), normalised_score, **shared.sampling())
    sums = {name: part @ shared.weight for name, part in shared.losses(outcome.loss).items()}
    by_seed = {name: np.broadcast_to(part, len(outcome.scores)) for name, part in sums.items()}
    row["score_by_seed"] = normalised_score(by_seed).tolist()
    row |= _containment(outcome, shared)
    row["pr_auc"] = mean_of_known(outcome.pr_auc)
    row["verdict_rates"] = np.mean(outcome.rates, axis=0).tolist()
    row["seeds"] = len(outcome.scores)
    row["trained"] = outcome.trained
    row["tuned"] = list(outcome.tuned)
    return row


def _containment(outcome: Outcome, shared: Field) -> dict[str, float | None]:
    """Median and restricted mean over the campaigns of all seeds, those never contained included."""
    time_s, contained, weight = (
        np.concatenate(parts)
        for parts in (
            [each.time_s for each in outcome.times],
            [each.contained for each in outcome.times],
            [shared.weight[each.episode] for each in outcome.times],
        )
    )
    curve = kaplan_meier(time_s, contained, weight=weight)
    return {
        "median_contain_s": None if curve is None else curve.median_s,
        "restricted_contain_s": None if curve is None else curve.restricted_mean_s(shared.horizon_s),
    }


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are not None; None without any.

    Example:
        >>> mean_of_known([1.0, None, 3.0]), mean_of_known([None])
        (2.0, None)
    """
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _alike(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seed by seed where both have as many or one has one; else each side's mean over its seeds."""
    if len(one) == len(other) or 1 in (len(one), len(other)):
        return one, other
    return one.mean(axis=0), other.mean(axis=0)


def _gains(committee: Outcome, other: Outcome, shared: Field) -> dict[str, Any]:
    ours, theirs = _alike(committee.loss, other.loss)
    return {
        "score": hierarchical_difference(
            shared.losses(theirs), shared.losses(ours), normalised_score, **shared.sampling()
        ),
        "loss_saved": hierarchical_difference(-theirs, -ours, **shared.sampling()),
    }


def best_baseline(outcomes: Mapping[str, Outcome], shared: Field) -> str | None:
    """The baseline of least weighted loss, the oracle apart: judged on the test itself, in the baselines' favour."""
    losses = {
        name: float(outcome.loss.mean(axis=0) @ shared.weight)
        for name, outcome in outcomes.items()
        if not outcome.trained and name != "oracle"
    }
    return min(losses, key=lambda name: losses[name]) if losses else None


def _closed(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return (sums["best"] - sums["loss"]) / (sums["best"] - sums["oracle"])


def gap_closed(committee: Outcome, best: Outcome, shared: Field) -> dict[str, Any]:
    """The share of the way from the best baseline to the oracle that the committee goes, with its interval.

    1 is the oracle, 0 the best baseline; a baseline with several fits counts with its mean over them.
    """
    values = shared.losses(committee.loss)
    return hierarchical_summary(
        {"loss": values["loss"], "oracle": values["oracle"], "best": best.loss.mean(axis=0)},
        _closed,
        **shared.sampling(),
    )
