"""All checks of a task: what its data, its split and its reward allow at best."""

from typing import Any

from phalanx.analysis.doctor import leaks, payoff, rules, splits
from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask

__all__ = ["examine_task"]


def examine_task(task: DataTask) -> tuple[dict[str, Any], list[Finding]]:
    """All checks of a task.

    Returns:
        Figures of the task (base rate, rewards of constant, probed and perfect policies), and the findings.
    """
    figures, found = payoff.check_payoff(task)
    found += payoff.check_consequence(task, figures)
    found += rules.check_rule(task)
    found += leaks.check_position(task)
    found += splits.check_constant(task)
    found += splits.check_split(task)
    return figures, found
