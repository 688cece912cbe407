"""Rules on how a run learns: the critic, the policy's steps, its randomness, the reward's scale.

What they say of progress holds up to the last row of the log, and is taken back where a run gets over it.
"""

import numpy as np
from jaxtyping import Float

from phalanx.analysis.doctor.answers import same_answers
from phalanx.analysis.doctor.course import (
    Course,
    first_row,
    lasting,
    number,
    trailing,
)
from phalanx.analysis.doctor.finding import Finding

__all__ = [
    "check_critic",
    "check_entropy",
    "check_kl",
    "check_reward_scale",
    "check_steps",
]

_WARM_UP = 10
"""Rows in which a critic may be anything."""

_STILL = 1e-3
"""A half of the network that moves by less than this share of what the other does is not trained."""


def check_kl(course: Course) -> list[Finding]:
    """Updates that throw the policy far from the one that collected the data: twice in five rows, or once by far."""
    kl, moved = course("policy/approx_kl"), course("update/actor")
    again = trailing(kl, 5, 0.75) > 0.2
    torn = (moved > 0.3) & ~(kl < 0.1) & (~np.isnan(kl) | (np.arange(len(course)) >= 3))
    row = first_row(again | (kl > 2.0) | torn)
    if row is None:
        return []
    return [
        Finding(
            "kl-explosion",
            "error",
            {
                "approx_kl": number(kl[row]),
                "clip_fraction": number(course("policy/clip_fraction")[row]),
                "parameters_moved": number(moved[row]),
                "learning_rate": number(course("optimizer/learning_rate")[row]),
            },
            "an update moves the policy so far that the rollout says nothing of the new one: the learning rate "
            "is too high, the epochs too many, or the clip is off",
            "a tenth of the learning rate; stop the epochs of an update where approx_kl passes .03",
            course.iteration(row),
        )
    ]


def _entropy_share(course: Course) -> Float[np.ndarray, " row"]:
    """Entropy as a share of its maximum; of its first values' where no log says the number of actions. A density's
    (of continuous actions) may be negative and has no maximum: NaN."""
    if course.has("policy/entropy_share"):
        return course("policy/entropy_share")
    entropy = course("policy/entropy")
    known = entropy[np.isfinite(entropy)]
    if not len(known):
        return entropy
    so_far = np.fmin.accumulate(entropy)
    return np.where(so_far >= 0.0, entropy / max(float(known[:10].max()), 1e-9), np.nan)


def check_entropy(course: Course) -> list[Finding]:
    """The policy is deterministic before it has learned, or stays uniform."""
    findings = []
    share, rows = _entropy_share(course), np.arange(len(course))
    # of events that are nearly all harmless a good policy answers nearly all alike, and with certainty
    apart = trailing(course("committee/recall") - course("committee/false_alarm_rate"), 3) > 0.05
    unknown = np.full(len(course), not course.rewards)
    opening = share[:3][np.isfinite(share[:3])]
    born = course.has("policy/entropy_share") and len(opening) > 1 and bool(opening.max() < 0.12)
    low = trailing(share, 3) < (0.12 if born else 0.1)
    row = lasting(low & (rows >= 11) & ~apart & (~course.improved & ~unknown | born))
    if row is not None:
        findings.append(
            Finding(
                "entropy-collapse",
                "warning" if course.improved[-1] else "error",
                {"entropy_share": float(share[row]), "entropy": number(course("policy/entropy")[row])}
                | ({"from_the_start": True} if born else {}),
                "the policy answers the same with near certainty before the reward has risen: it no longer "
                "tries anything from which it could learn better",
                "raise the entropy bonus (ten times), lower the learning rate; look at the sign of the bonus "
                "and at the scale of the policy head's first weights (.01)",
                course.iteration(row),
            )
        )
    uniform = (trailing(share, 10) > 0.97) & course.late & ~course.improved & ~unknown
    # the advantages say clearly what is better, and the policy stays where it is
    known = trailing(course.tests("effect"), 10) > 4.0
    fallen = np.concatenate([np.full(min(15, len(share)), np.nan), share[:-15] - share[15:]])
    held_up = (trailing(share, 5) > 0.85) & known & (trailing(fallen, 5) < 0.02) & (rows >= 25)
    row = lasting(uniform | held_up)
    if row is not None:
        findings.append(
            Finding(
                "entropy-high",
                "warning",
                {"entropy_share": float(share[row]), "effect_known": bool(held_up[row])},
                "the policy is still nearly uniform: the bonus for entropy outweighs the reward, or the "
                "policy's gradient is nought",
                "a tenth of the entropy bonus; if that does not help, look at the findings on the advantages",
                course.iteration(row),
            )
        )
    return findings


def check_reward_scale(course: Course) -> list[Finding]:
    """Value targets far from the units that the critic emits."""
    explained = trailing(course("value/explained_variance"), 3)
    rows = np.arange(len(course))
    error = trailing(np.sqrt(np.maximum(course("loss/value"), 0.0)), 3)
    # where the reward has risen all the same, only a critic that explains nothing is worth a word
    poor = (explained <= 0.5) & ~course.improved | (explained <= 0.1)
    row = lasting((error > 1e3) & poor & (rows >= 5))
    if row is not None:
        return [
            Finding(
                "reward-scale",
                "warning" if course.improved[-1] else "error",
                {"value_error": float(error[row]), "explained_variance": number(explained[row])},
                f"value targets lie {error[row]:.2g} of the critic's units from what it says, more than an "
                "optimiser can follow whose steps are as large as the learning rate: the value loss is huge "
                "whatever the policy does",
                "normalise the value targets (phalanx train --normalizer popart; VecNormalize in "
                "Stable-Baselines3), or divide the reward",
                course.iteration(row),
            )
        ]
    spread = trailing(course("value/target_std") / course("value/scale"), 3)
    # at the end of a run that went well targets may hardly differ, and before the first success of a sparse reward
    varied = np.zeros(len(course), bool)
    for reward in course.rewards:
        changes = np.cumsum(np.abs(np.diff(reward, prepend=np.nan)) > 0)
        varied |= changes > 0.5 * np.cumsum(np.isfinite(reward))
    row = lasting((spread < 1e-2) & (explained <= 0.5) & ~course.improved & varied)
    if row is None:
        return []
    return [
        Finding(
            "reward-scale",
            "error",
            {"target_spread": float(spread[row]), "explained_variance": number(explained[row])},
            f"value targets differ by some {spread[row]:.2g} of the critic's units: its own noise hides them, "
            "and the value loss looks small while nothing is learned",
            "normalise the value targets (phalanx train --normalizer popart; VecNormalize in "
            "Stable-Baselines3), or multiply the reward",
            course.iteration(row),
        )
    ]


def check_steps(course: Course) -> list[Finding]:
    """The parameters of actor or critic never moved, or both hardly do.

    One half that stops moving later has nothing to learn any more, which is something else.
    """
    actor, critic = (
        np.fmax.accumulate(trailing(course(f"update/{half}"), 3)) for half in ("actor", "critic")
    )
    warm = np.arange(len(course)) >= _WARM_UP  # some train the critic alone at first
    for half, moved, other in (("actor", actor, critic), ("critic", critic, actor)):
        row = lasting((moved < _STILL * other) & warm)
        if row is not None:
            return [_frozen(course, half, row, moved[row], other[row])]
    both = np.fmax(actor, critic)
    still = both < 2e-4
    if not course.has("update/actor"):  # where nobody tells: a policy that stays what it was
        still = np.fmax.accumulate(trailing(course("policy/approx_kl"), 3)) < 3e-7
    row = lasting(still & ~course.improved & warm)
    if row is None or not course.rewards:
        return []
    return [
        Finding(
            "updates-too-small",
            "error",
            {
                "actor_moved": number(actor[row]),
                "critic_moved": number(critic[row]),
                "approx_kl": number(course("policy/approx_kl")[row]),
                "learning_rate": number(course("optimizer/learning_rate")[row]),
            },
            "updates hardly change anything: parameters by less than a five-thousandth of their length, or the "
            "policy by a KL divergence of less than a millionth, where a run that learns moves parameters by a "
            "thousandth to a tenth: the learning rate is too low, or gradients are cut away",
            "ten to a hundred times the learning rate; look at the norm that gradients are cut to and at the "
            "optimiser's epsilon",
            course.iteration(row),
        )
    ]


def _frozen(course: Course, half: str, row: int, moved: float, other: float) -> Finding:
    partner = "critic" if half == "actor" else "actor"
    return Finding(
        f"{half}-frozen",
        "error",
        {f"{half}_moved": float(moved), f"{partner}_moved": float(other)},
        f"the {half}'s parameters do not move: they are not in the optimiser, their gradient is stopped, or their "
        "loss has no weight",
        f"see that the optimiser holds the {half}'s parameters and that its loss enters the total",
        course.iteration(row),
    )


def check_critic(course: Course) -> list[Finding]:
    """The critic diverges, or says the same of everything."""
    return [finding for finding in (_wild(course), _constant(course), _blind(course)) if finding is not None]


def _wild(course: Course) -> Finding | None:
    explained, loss = course("value/explained_variance"), course("loss/value")
    smooth = trailing(loss, 3)
    least = np.fmin.accumulate(smooth)
    wild = trailing(explained, 5)
    # where targets hardly differ any more, a variance explained says nothing: the error is seen beside their size, too
    size = np.fmax(np.abs(course("value/target_mean")), course("value/target_std"))
    beside = trailing(np.sqrt(np.maximum(1.0 - explained, 0.0)) * course("value/target_std") / size, 5)
    far = (beside >= 3.0) | np.isnan(beside) & ~course.improved
    grown = (smooth > 1e3 * np.maximum(least, 1e-12)) & (wild < -1.0)
    felt = ~(smooth < 0.1)  # of its units: less hardly moves anything
    row = lasting((grown | (wild < -20.0)) & far & felt & (np.arange(len(course)) >= _WARM_UP))
    if row is None:
        return None
    return Finding(
        "value-loss-explosion",
        "error",
        {
            "value_loss": number(loss[row]),
            "least_so_far": number(least[row]),
            "explained_variance": number(wild[row]),
        },
        "the critic is far worse than a constant, and getting no better: its updates are too large for the targets",
        "a tenth of the learning rate of the critic; normalise the value targets",
        course.iteration(row),
    )


def _constant(course: Course) -> Finding | None:
    possible = trailing(course("value/linear_r2"), 10)
    told = trailing(course("value/explained_variance"), 10)
    spread = course("value/target_std") / np.maximum(np.abs(course("value/target_mean")), 1e-30)
    varies = ~(trailing(spread, 10) < 1e-3)
    could = (possible > 0.15) & (told < 0.2 * possible) & (np.arange(len(course)) >= 20)
    same = same_answers(course)  # a reward that rose by giving up has not risen by learning
    improved = course.improved if same is None else course.improved & ~np.isfinite(same[0])
    flat = (told < 0.05) & ~improved & course.late & bool(course.rewards)
    row = lasting(varies & (could | flat))
    if row is None:
        return None
    known = bool(could[row])
    severity = "info" if improved[-1] else "error" if course.rewards else "warning"
    return Finding(
        "value-loss-stuck",
        severity,
        {
            "explained_variance": number(told[row]),
            "linear_critic": number(possible[row]),
            "value_loss": number(course("loss/value")[row]),
        },
        "the critic says the same of every state while returns differ"
        + (
            ", although a linear function of what it sees would tell them apart: its fit is at fault"
            if known
            else ": what it sees does not tell returns apart, or it cannot fit them"
        ),
        "look at which target belongs to which state, at the critic's learning rate and at its units"
        if known
        else "see whether returns can be told from the observation: fit any regression of them on it (of recorded "
        "events, phalanx doctor --data does); with targets of unit "
        "variance a value loss of 1 means nothing is explained, and no other scaling changes that",
        course.iteration(row),
    )


def _blind(course: Course) -> Finding | None:
    """Neither the critic nor a linear function of what is seen has ever told returns apart."""
    if not course.has("value/linear_r2", "value/explained_variance") or not course.rewards:
        return None
    told = np.fmax(trailing(course("value/explained_variance"), 10), trailing(course("value/linear_r2"), 10))
    spread = course("value/target_std") / np.maximum(np.abs(course("value/target_mean")), 1e-30)
    never = (np.fmax.accumulate(told) < 0.03) & ~course.improved
    row = lasting(course.late & never & (trailing(spread, 10) > 0.3))
    if row is None:
        return None
    return Finding(
        "unlearnable-observation",
        "warning",
        {"explained_at_best": float(np.nanmax(told[: row + 1])), "target_spread": float(spread[row])},
        "half of the budget is gone, and neither the critic nor a linear function of what it sees has told good "
        "states from bad ones at any time, although returns differ",
        "see whether the observation tells anything of the reward: phalanx doctor --data for recorded events; "
        "print observations beside rewards; without a memory, look for what it would have to remember",
        course.iteration(row),
    )
