"""Rules on what follows from the actions: whether anything does, and whether the reward rises by it.

What they say of progress holds up to the last row of the log, and is taken back where a run gets over it.
"""

import numpy as np
from jaxtyping import Float

from phalanx.analysis.doctor.course import (
    Course,
    accumulated,
    gain_z,
    lasting,
    number,
    spread_of_last,
    trailing,
    wandering_z,
)
from phalanx.analysis.doctor.finding import Finding

__all__ = ["check_effect", "check_reward"]


def check_effect(course: Course) -> list[Finding]:
    """Neither the advantage nor what follows depends on the action taken."""
    tests = np.cumsum(np.isfinite(course.tests("effect")))
    effect, consequence, transition = (
        np.fmax.accumulate(accumulated(course.tests(name)))
        for name in ("effect", "consequence", "transition")
    )
    none = (tests >= 10) & (effect < 3.5) & ~(consequence >= 3.5) & ~(transition >= 3.5) & ~course.improved
    row = lasting(none & (np.arange(len(course)) >= round(0.05 * course.budget)))
    if row is not None:
        return [_without_effect(course, row, effect[row], consequence[row])]
    return _severed(course)


def _severed(course: Course) -> list[Finding]:
    """What is seen next no longer depends on the action, where it clearly did before, and half of the gain is gone.

    Tests alone are no sign: a policy that has settled what matters may be random only where nothing follows.
    """
    if not course.rewards:
        return []
    now = {name: accumulated(course.tests(name), 10) for name in ("effect", "consequence", "transition")}
    counted = np.cumsum(np.isfinite(course.tests("transition")))
    counted = counted - np.concatenate([np.zeros(10), counted])[: len(course)]
    nothing = (
        (now["transition"] < 2.0) & ~(now["effect"] > 3.5) & ~(now["consequence"] > 3.5) & (counted >= 8)
    )
    gone = _kept(course.rewards[0]) < 0.5
    began = lasting((np.fmax.accumulate(now["transition"]) > 8.0) & nothing & gone)
    if began is None or len(course) - began < 10:
        return []
    row = began + 9
    return [_without_effect(course, row, float(now["effect"][row]), float(now["consequence"][row]))]


def _without_effect(course: Course, row: int, effect: float, consequence: float) -> Finding:
    """Why nothing follows from what the learner believes that it did."""
    predictable = trailing(course("features/predictable"), 5)
    if predictable[row] < 0.05:
        return Finding(
            "unlearnable-observation",
            "error",
            {"predictable": float(predictable[row]), "effect_z": number(effect)},
            "what is seen at one step tells nothing of what is seen at the next, and nothing follows from the "
            "action: the features are noise, or change their places",
            "print a few observations in a row; look at the order in which features are put together, and at "
            "whose observation it is",
            course.iteration(row),
        )
    return Finding(
        "actions-without-consequence",
        "error",
        {"effect_z": number(effect), "consequence_z": number(consequence)},
        "what follows does not depend on the action that the learner believes it took: not the advantage, nor "
        "the value of the next state",
        "see that the action stored is the one carried out in that environment at that step; if it is, the task "
        "gives nothing to decide",
        course.iteration(row),
    )


def check_reward(course: Course) -> list[Finding]:
    """No improvement over the untrained policy, less than it had, or an improvement that is lost again."""
    if not course.rewards:
        return []
    reward = course.rewards[0]
    lost = _loss_of_gain(course, reward)
    if lost is not None:
        return [lost]
    z = np.fmin.reduce([gain_z(reward, 8, opening) for opening in (3, 8)])
    below = lasting((z < -3.0) & ~course.improved)
    # a fall at once, to a level kept since, of a policy that became more certain: rows that wander do not stay
    opening = reward[np.isfinite(reward)][:3]
    fall = trailing(reward, 3) - (opening.min() if len(opening) else np.nan)
    entropy = course("policy/entropy")
    surer = trailing(entropy, 3) < 0.7 * np.fmax.accumulate(trailing(entropy, 3))
    settled = (fall < -10.0 * spread_of_last(reward, 20)) & surer
    strong = (z < -5.0) & ((wandering_z(reward) < -2.5) | settled) & (np.arange(len(course)) >= 12)
    if below is not None and strong[below:].any():
        row = below + int(np.argmax(strong[below:]))
        return [
            Finding(
                "reward-falls",
                "error",
                {"gain_z": float(z[row]), "reward": number(reward[row])},
                "the reward falls below that of the untrained policy: what is learned is the opposite, or a "
                "policy that stopped trying",
                "look at the sign of the reward, of the advantage and of the policy loss",
                course.iteration(row),
            )
        ]
    told = np.max([np.cumsum(np.isfinite(each)) for each in course.rewards], axis=0)
    row = lasting(course.late & ~course.improved & (told >= 15))
    if row is None:
        return []
    unclear = bool(course.rise_z[-1] > 2.5)  # it may be rising, in much noise
    varies = any(np.nanmax(each) > np.nanmin(each) for each in course.rewards)
    return [
        Finding(
            "reward-flat",
            "warning" if varies and not unclear else "info",
            {"rise_z": number(course.rise_z[-1]), "reward": number(reward[row])},
            "the reward is "
            + ("not clearly" if unclear else "no")
            + " better than that of the untrained policy",
            "look at the other findings first; if there is none: more exploration, a larger learning rate, more "
            "steps an iteration, or a task in which the first successes are easier to come by",
            course.iteration(row),
        )
    ]


def _opening(reward: Float[np.ndarray, " row"]) -> float:
    known = reward[np.isfinite(reward)]
    return float(np.mean(known[:3])) if len(known) else np.nan


def _kept(reward: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """What is left of the greatest rise so far, as a share of it."""
    level, opening = trailing(reward, 8), _opening(reward)
    return (level - opening) / np.maximum(np.fmax.accumulate(level) - opening, 1e-30)


def _loss_of_gain(course: Course, reward: Float[np.ndarray, " row"]) -> Finding | None:
    """After a clear rise the reward is back where it began and stays there, or has lost most of its gain for long."""
    level, kept = trailing(reward, 8), _kept(reward)
    risen = np.logical_or.accumulate(
        wandering_z(reward) > 2.5
    )  # more than smoothed rows wander by themselves
    back = course.improved & risen
    earlier = np.concatenate([np.full(min(8, len(kept)), np.nan), kept[:-8]])
    rising = kept - earlier > 0.05
    all_gone, most_gone = lasting(back & (kept < 0.2)), lasting(back & (kept < 0.4) & ~rising)
    rows = max(16, round(0.2 * course.budget))
    if all_gone is not None and len(course) - all_gone >= 8:
        row, severity, lost = all_gone + 7, "error", "is back at that of the untrained policy"
    elif most_gone is not None and len(course) - most_gone >= rows:
        row, severity, lost = most_gone + rows - 1, "warning", "has lost more than half of what it had gained"
    else:
        return None
    z = {name: course.tests(name) for name in ("effect", "consequence")}
    now = {name: float(trailing(values, 8)[row]) for name, values in z.items()}
    at_first = [float(np.nanmedian(values[:5])) for values in z.values() if np.isfinite(values[:5]).any()]
    if max(at_first, default=0.0) > 3.0 and max(now.values()) < 1.0:  # as good a policy had an effect then
        return _without_effect(course, row, now["effect"], now["consequence"])
    return Finding(
        "reward-falls",
        severity,
        {"best": float(np.nanmax(level[: row + 1])), "now": float(level[row]), "untrained": _opening(reward)},
        f"the reward had risen and {lost}: an update destroyed what was learned, or the task became harder",
        "a smaller learning rate, or one that falls over the run; go on from a checkpoint before the fall",
        course.iteration(row),
    )
