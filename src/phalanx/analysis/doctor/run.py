"""All checks of a training run, from its log alone; those nearest to a cause first."""

from collections.abc import Sequence

import numpy as np

from phalanx.analysis.doctor import answers, consequences, learning, mechanics
from phalanx.analysis.doctor.course import Course
from phalanx.analysis.doctor.finding import SEVERITIES, Finding, subject
from phalanx.analysis.logs import TrainingLog

__all__ = ["CAUSAL_ORDER", "examine_run", "ordered"]

CAUSAL_ORDER = (
    "first-ratio-mismatch",
    "actions-not-sampled",
    "memory-not-reset",
    "actor-frozen",
    "critic-frozen",
    "unlearnable-observation",
    "reward-scale",
    "kl-explosion",
    "weights-vanish",
    "dead-units",
    "termination-as-time-limit",
    "time-limit-as-termination",
    "normalizer-stale",
    "non-finite",
    "updates-too-small",
    "actions-without-consequence",
    "reward-falls",
    "entropy-collapse",
    "entropy-high",
    "value-loss-explosion",
    "normalizer-floor",
    "value-loss-stuck",
    "votes-not-pivotal",
    "spec-always-violated",
    "spec-ignores-actions",
    "spec-never-active",
    "policy-collapse-permissive",
    "policy-collapse-restrictive",
    "no-true-positives",
    "reward-flat",
)
"""What brings about what: a broken law explains a critic that fails, and that a reward that does not rise."""

_CHECKS = (
    mechanics.check_first_ratio,
    mechanics.check_actions_sampled,
    mechanics.check_memory,
    mechanics.check_ends,
    mechanics.check_inputs,
    mechanics.check_normalizer,
    mechanics.check_dead_units,
    mechanics.check_weights,
    learning.check_steps,
    learning.check_kl,
    learning.check_entropy,
    learning.check_reward_scale,
    learning.check_critic,
    consequences.check_effect,
    consequences.check_reward,
    answers.check_collapse,
    answers.check_detection,
    answers.check_pivotal,
    answers.check_specs,
)


def examine_run(log: TrainingLog, budget: int | None = None) -> list[Finding]:
    """The findings on a run, the gravest first, of those the one nearest to a cause.

    Args:
        log: the run so far; a rule looks back only, so a finding of a run's beginning stays what it was.
        budget: rows that the log is to have in the end; those it has unless given. Rules on missing progress wait
            for a share of it.
    """
    budget = budget or len(log)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found, end = mechanics.check_non_finite(Course(log, budget))
        course = Course(log.upto(end), budget)  # figures that came after say nothing
        found += [finding for check in _CHECKS for finding in check(course)]
    told = ordered([finding for finding in found if not any(_brought(cause, finding) for cause in found)])
    first = {(finding.symptom, subject(finding)): finding for finding in reversed(told)}
    return [finding for finding in told if finding is first[finding.symptom, subject(finding)]]


def _brought(cause: Finding, finding: Finding) -> bool:
    """Whether a finding is what another, that is as grave and came no later, makes happen: a half that hardly moves,
    not one that never does, for gradients are cut to one norm together, or end at dead units."""
    half = finding.symptom.removesuffix("-frozen")
    if half == finding.symptom or not finding.evidence[f"{half}_moved"]:
        return False
    large = cause.symptom == "reward-scale" and "value_error" in cause.evidence and half == "actor"
    as_grave = SEVERITIES.index(cause.severity) <= SEVERITIES.index(finding.severity)
    first = (cause.iteration or 0) <= (finding.iteration or 0)
    return (large or cause.symptom == "dead-units") and as_grave and first


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """The gravest first, of those the one nearest to a cause, and of those the earliest."""
    place = {symptom: at for at, symptom in enumerate(CAUSAL_ORDER)}

    def nearness(finding: Finding) -> int:
        if finding.evidence.get("from_the_start"):
            return 0  # what was so before any update has no cause in the updates
        return place.get(finding.symptom, len(place))

    return sorted(found, key=lambda f: (SEVERITIES.index(f.severity), nearness(f), f.iteration or 0))
