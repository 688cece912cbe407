"""All checks of a task: what its data, its split and its reward allow at best."""

from typing import Any

from phalanx.analysis.doctor import leaks, payoff, rehearsal, rules, settings, splits
from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask

__all__ = ["examine_task"]


def examine_task(task: DataTask) -> tuple[dict[str, Any], list[Finding]]:
    """All checks of a task.

    Returns:
        Figures of the task (base rate, rewards of constant, probed and perfect policies; where the reward has other
        terms, too, ``reward_played``, the whole of it by policy), and the findings.
    """
    figures, found = payoff.check_payoff(task)
    found += payoff.check_consequence(task, figures)
    if task.rehearsal is not None:
        mean = task.rehearsal.reward.mean(axis=1)
        figures["reward_played"] = dict(zip(task.rehearsal.policies, mean.tolist(), strict=True))
        found += rehearsal.check_terms(task.rehearsal)
        found += rehearsal.check_specs(task.rehearsal)
    found += settings.check_members({"members": task.members})
    found += rules.check_rule(task)
    found += leaks.check_position(task)
    found += splits.check_constant(task)
    found += splits.check_split(task)
    return figures, found
