"""Rules on whether and how a run learns: the critic, the policy's steps, its randomness, the reward."""

import numpy as np

from phalanx.analysis.doctor.course import Course, accumulated, first_row, gain_z, trailing
from phalanx.analysis.doctor.finding import Finding

__all__ = [
    "check_critic",
    "check_effect",
    "check_entropy",
    "check_kl",
    "check_reward",
    "check_reward_scale",
    "improved",
    "reward_of",
]


_WINDOWS = (8, 16, 32)
"""Rows over which a rise of the reward is looked for: a slow one needs many."""


def reward_of(course: Course) -> np.ndarray:
    """The reward by which progress is judged: of a step where it was logged, for episodes that end early come first."""
    return course("reward/step" if course.has("reward/step") else "reward/episode")


def improved(course: Course) -> np.ndarray:
    """Whether the reward had risen clearly above that of the untrained policy, at any row so far."""
    reward = reward_of(course)
    z = np.fmax.reduce([gain_z(reward, window) for window in _WINDOWS])
    return np.maximum.accumulate(np.nan_to_num(z, nan=-np.inf)) > 4.0


def _row_of_judgement(course: Course) -> int:
    """Before this row it is too early to miss progress."""
    return max(25, round(0.5 * course.budget))


def check_kl(course: Course) -> list[Finding]:
    """Updates that throw the policy far from the one that collected the data: twice in five rows, or once by far."""
    kl, moved = course("policy/approx_kl"), course("update/actor")
    again = trailing(kl, 5, 0.75) > 0.2
    row = first_row(again | (kl > 2.0) | (moved > 0.3))
    if row is None:
        return []
    return [
        Finding(
            "kl-explosion",
            "error",
            {
                "approx_kl": _number(kl[row]),
                "clip_fraction": _number(course("policy/clip_fraction")[row]),
                "parameters_moved": _number(moved[row]),
            },
            "an update moves the policy so far that the rollout says nothing of the new one: the learning rate is too "
            "high, the epochs too many, or the clip is off",
            "a tenth of the learning rate; stop the epochs of an update where approx_kl passes .03",
            course.iteration(row),
        )
    ]


def check_entropy(course: Course) -> list[Finding]:
    """The policy is deterministic before it has learned, or stays uniform."""
    findings = []
    share = course("policy/entropy_share")
    entropy = course("policy/entropy")
    if not course.has("policy/entropy_share") and course.has("policy/entropy"):
        share = entropy / max(float(np.nanmax(entropy[:10], initial=1e-9)), 1e-9)
    # of events that are nearly all harmless a good policy answers nearly all alike, and with certainty
    apart = trailing(course("committee/recall") - course("committee/false_alarm_rate"), 3) > 0.05
    low = (trailing(share, 3) < 0.1) & (np.arange(len(course)) >= 11) & ~apart
    row = first_row(low & ~improved(course))
    if row is not None:
        findings.append(
            Finding(
                "entropy-collapse",
                "error",
                {"entropy_share": float(share[row]), "entropy": _number(entropy[row])},
                "the policy answers the same with near certainty before the reward has risen: it no longer "
                "tries anything "
                "from which it could learn better",
                "raise the entropy bonus (ten times), lower the learning rate; look at the sign of the bonus "
                "and at the "
                "scale of the policy head's first weights (.01)",
                course.iteration(row),
            )
        )
    judged = np.arange(len(course)) >= _row_of_judgement(course)
    uniform = (trailing(share, 10) > 0.97) & judged
    # the advantages say clearly what is better, and the policy stays where it is
    known = trailing(_effect(course, "effect"), 10) > 4.0
    fallen = np.concatenate([np.full(min(15, len(share)), np.nan), share[:-15] - share[15:]])
    held_up = (
        (trailing(share, 5) > 0.85) & known & (trailing(fallen, 5) < 0.02) & (np.arange(len(course)) >= 25)
    )
    row = first_row(uniform | held_up)
    if row is not None:
        findings.append(
            Finding(
                "entropy-high",
                "warning",
                {"entropy_share": float(share[row]), "improved": bool(improved(course)[row])},
                "the policy is still as good as uniform: the bonus for entropy outweighs the reward, or the policy's "
                "gradient is nought",
                "a tenth of the entropy bonus; if that does not help, look at the findings on the advantages",
                course.iteration(row),
            )
        )
    return findings


def check_reward_scale(course: Course) -> list[Finding]:
    """Value targets far from the units that the critic emits."""
    explained = trailing(course("value/explained_variance"), 3)
    error = trailing(np.sqrt(np.maximum(course("loss/value"), 0.0)), 3)
    row = first_row((error > 1e3) & ~(explained > 0.5))
    if row is not None:
        return [
            Finding(
                "reward-scale",
                "error",
                {"value_error": float(error[row]), "explained_variance": _number(explained[row])},
                f"value targets lie {error[row]:.2g} of the critic's units from what it says, more than an "
                f"optimiser whose "
                "steps are as large as the learning rate can follow: the value loss is huge whatever the policy does",
                "normalise the value targets (phalanx train --normalizer popart; VecNormalize in "
                "Stable-Baselines3), or "
                "divide the reward",
                course.iteration(row),
            )
        ]
    spread = trailing(course("value/target_std") / course("value/scale"), 3)
    # as small from the start: at the end of a run that went well targets may hardly differ
    row = first_row((spread < 1e-2) & ~(explained > 0.5) & ~improved(course) & (np.arange(len(course)) < 12))
    if row is None:
        return []
    return [
        Finding(
            "reward-scale",
            "error",
            {"target_spread": float(spread[row]), "explained_variance": _number(explained[row])},
            f"value targets differ by some {spread[row]:.2g} of the critic's units: its own noise hides them, and the "
            "value loss looks small while nothing is learned",
            "normalise the value targets (phalanx train --normalizer popart; VecNormalize in Stable-Baselines3), or "
            "multiply the reward",
            course.iteration(row),
        )
    ]


def check_critic(course: Course) -> list[Finding]:
    """The critic diverges, does not move, or says the same of everything."""
    findings = []
    explained = course("value/explained_variance")
    loss = course("loss/value")
    smooth = trailing(loss, 3)
    least = np.fmin.accumulate(smooth)
    wild = trailing(explained, 5)
    # where targets hardly differ any more, a variance explained says nothing: the error is seen beside their size, too
    size = np.fmax(np.abs(course("value/target_mean")), course("value/target_std"))
    beside = trailing(np.sqrt(np.maximum(1.0 - explained, 0.0)) * course("value/target_std") / size, 5)
    far = ~(beside < 3.0) & (~improved(course) | (beside >= 3.0))
    row = first_row(((smooth > 1e3 * np.maximum(least, 1e-12)) & (wild < -1.0) | (wild < -20.0)) & far)
    if row is not None:
        findings.append(
            Finding(
                "value-loss-explosion",
                "error",
                {
                    "value_loss": _number(loss[row]),
                    "least_so_far": _number(least[row]),
                    "explained_variance": _number(wild[row]),
                },
                "the critic is far worse than a constant, and getting no better: its updates are too large "
                "for the targets",
                "a tenth of the learning rate of the critic; normalise the value targets",
                course.iteration(row),
            )
        )
    moved, acted = trailing(course("update/critic"), 3), trailing(course("update/actor"), 3)
    row = first_row((moved < 1e-7) & (acted > 1e-7))
    if row is not None:
        findings.append(
            Finding(
                "critic-frozen",
                "error",
                {"critic_moved": float(moved[row]), "actor_moved": float(acted[row])},
                "the critic's parameters do not move: they are not in the optimiser, their gradient is stopped, or the "
                "value loss has no weight",
                "see that the optimiser holds the critic's parameters and that the value loss enters the total",
                course.iteration(row),
            )
        )
        return findings
    possible = trailing(course("value/linear_r2"), 10)
    findings += _blind(course)
    told = trailing(explained, 10)
    spread = course("value/target_std") / np.maximum(np.abs(course("value/target_mean")), 1e-30)
    varies = ~(trailing(spread, 10) < 1e-3)
    judged = np.arange(len(course)) >= 20
    could = (possible > 0.15) & (told < 0.2 * possible)
    flat = (told < 0.05) & ~improved(course) & (np.arange(len(course)) >= _row_of_judgement(course))
    row = first_row(judged & varies & (could | flat))
    if row is not None:
        known = bool(possible[row] > 0.15)
        findings.append(
            Finding(
                "value-loss-stuck",
                "error" if not improved(course)[row] else "info",
                {
                    "explained_variance": _number(told[row]),
                    "linear_critic": _number(possible[row]),
                    "value_loss": _number(loss[row]),
                },
                "the critic says the same of every state while returns differ"
                + (
                    ", although a linear function of what it sees would tell them apart: its fit is at fault"
                    if known
                    else ": what it sees does not tell returns apart, or it cannot fit them"
                ),
                "look at which target belongs to which state, at the critic's learning rate and at its units"
                if known
                else "see whether returns can be told from the observation: phalanx doctor --data; with targets of "
                "unit variance a value loss of 1 means nothing is explained, and no other scaling changes that",
                course.iteration(row),
            )
        )
    return findings


def _blind(course: Course) -> list[Finding]:
    """Neither the critic nor a linear function of what is seen has ever told returns apart."""
    if not course.has("value/linear_r2", "value/explained_variance"):
        return []
    told = np.fmax(trailing(course("value/explained_variance"), 10), trailing(course("value/linear_r2"), 10))
    spread = course("value/target_std") / np.maximum(np.abs(course("value/target_mean")), 1e-30)
    judged = np.arange(len(course)) >= _row_of_judgement(course)
    never = (np.fmax.accumulate(told) < 0.03) & ~improved(course)
    row = first_row(judged & never & (trailing(spread, 10) > 0.3))
    if row is None:
        return []
    return [
        Finding(
            "unlearnable-observation",
            "warning",
            {"explained_at_best": float(np.nanmax(told[: row + 1])), "target_spread": float(spread[row])},
            "half of the budget is gone, and neither the critic nor a linear function of what it sees has "
            "told good states "
            "from bad ones at any time, although returns differ",
            "see whether the observation tells anything of the reward: phalanx doctor --data for recorded "
            "events; print "
            "observations beside rewards; without a memory, look for what it would have to remember",
            course.iteration(row),
        )
    ]


def _effect(course: Course, name: str) -> np.ndarray:
    """Score tests of an action's effect, where the policy tries enough for them to mean anything."""
    z = course(f"policy/{name}_z")
    return np.where(course("policy/entropy_share") < 0.05, np.nan, z)


def check_effect(course: Course) -> list[Finding]:
    """Neither the advantage nor the next state depends on the action taken."""
    if not course.has("policy/effect_z"):
        return []
    effect = np.fmax.accumulate(accumulated(_effect(course, "effect")))
    consequence = np.fmax.accumulate(accumulated(_effect(course, "consequence")))
    rows = np.arange(len(course))
    row = first_row((effect < 3.5) & ~(consequence >= 3.5) & (rows >= 9))
    return [] if row is None else [_without_effect(course, row, effect[row], consequence[row])]


def _without_effect(course: Course, row: int, effect: float, consequence: float) -> Finding:
    """Why nothing follows from what the learner believes that it did."""
    predictable = trailing(course("features/predictable"), 5)
    if predictable[row] < 0.05:
        return Finding(
            "unlearnable-observation",
            "error",
            {"predictable": float(predictable[row]), "effect_z": float(effect)},
            "what is seen at one step tells nothing of what is seen at the next, and nothing follows "
            "from the action: "
            "the features are noise, or change their places",
            "print a few observations in a row; look at the order in which features are put together, and at whose "
            "observation it is",
            course.iteration(row),
        )
    return Finding(
        "actions-without-consequence",
        "error",
        {"effect_z": float(effect), "consequence_z": _number(consequence)},
        "what follows does not depend on the action that the learner believes it took: not the "
        "advantage, nor the value "
        "of the next state",
        "see that the action stored is the one carried out in that environment at that step; if it is, "
        "the task gives "
        "nothing to decide",
        course.iteration(row),
    )


def check_reward(course: Course) -> list[Finding]:
    """No improvement over the untrained policy, less than it had, or an improvement that is lost again."""
    reward = reward_of(course)
    if np.isfinite(reward).sum() < 15:
        return []
    lost = _loss_of_gain(course)
    if lost is not None:
        return [lost]
    z = gain_z(reward)
    judged = np.arange(len(course)) >= _row_of_judgement(course)
    worse = trailing(z, 5) < -6.0
    row = first_row(judged & ~improved(course))
    falling = first_row(worse & ~improved(course) & (np.arange(len(course)) >= 12))
    if falling is not None and (row is None or falling < row):
        return [
            Finding(
                "reward-falls",
                "error",
                {"gain_z": float(z[falling]), "reward": _number(reward[falling])},
                "the reward falls below that of the untrained policy: what is learned is the opposite, or a "
                "policy that "
                "stopped trying",
                "look at the sign of the reward, of the advantage and of the policy loss",
                course.iteration(falling),
            )
        ]
    if row is None:
        return []
    return [
        Finding(
            "reward-flat",
            "warning",
            {"gain_z": _number(z[row]), "reward": _number(reward[row])},
            "the reward is no better than that of the untrained policy",
            "look at the other findings first; if there is none: more exploration, a larger learning rate, "
            "more steps an "
            "iteration, or a task in which the first successes are easier to come by",
            course.iteration(row),
        )
    ]


def _loss_of_gain(course: Course) -> Finding | None:
    """The reward is back where it began, after a clear rise, and stays there."""
    reward = reward_of(course)
    level = trailing(reward, 8)
    opening = float(np.mean(reward[np.isfinite(reward)][:3]))
    best = np.fmax.accumulate(level)
    back = improved(course) & (level - opening < 0.2 * (best - opening))
    row = first_row(trailing(np.where(np.isfinite(level), back, np.nan), 8, 0.0) > 0.5)
    if row is None:
        return None
    effect, consequence = (
        float(trailing(_effect(course, name), 8)[row]) for name in ("effect", "consequence")
    )
    before = np.nanmax(
        [
            float(np.nanmedian(_effect(course, name)[:5])) if course.has(f"policy/{name}_z") else 0.0
            for name in ("effect", "consequence")
        ]
    )
    if before > 3.0 and effect < 1.0 and consequence < 1.0:  # at the beginning, as good a policy, they had
        return _without_effect(course, row, effect, consequence)
    return Finding(
        "reward-falls",
        "error",
        {"best": float(best[row]), "now": float(level[row]), "untrained": opening},
        "the reward had risen and is back at that of the untrained policy: an update destroyed what was learned",
        "a smaller learning rate, or one that falls over the run; go on from a checkpoint before the fall",
        course.iteration(row),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
