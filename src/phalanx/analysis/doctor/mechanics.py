"""Rules on what must hold in any run, well or badly tuned: laws of the algorithm that a log can show broken."""

import re

import numpy as np

from phalanx.analysis.doctor.course import Course, accumulated, first_row, lasting, trailing
from phalanx.analysis.doctor.finding import Finding

__all__ = [
    "check_actions_sampled",
    "check_dead_units",
    "check_ends",
    "check_first_ratio",
    "check_inputs",
    "check_memory",
    "check_non_finite",
    "check_normalizer",
    "check_weights",
]

_FINITE = ("loss/value", "loss/policy", "policy/entropy", "policy/approx_kl")
_AGENT = re.compile(r"^member/[^/]+/")


def check_non_finite(course: Course) -> tuple[list[Finding], int]:
    """A loss, the entropy or the KL divergence is not a number or infinite, of any agent, twice or at the end; and how
    many rows came before it stayed so."""
    bad: dict[str, int] = {}
    end = len(course)
    for name, series in course.log.series.items():
        if _AGENT.sub("", name) not in _FINITE:
            continue
        rows = series.row[~np.isfinite(series.value)]
        if len(rows) > 1 or (len(rows) == 1 and rows[0] == series.row[-1] and len(series.row) > 1):
            bad[name] = int(rows[0])
            n_last = int(np.argmax(np.append(np.isfinite(series.value[::-1]), True)))  # not finite to the end
            end = min(end, int(series.row[-n_last]) if n_last else end)
    if not bad:
        return [], end
    name, row = min(bad.items(), key=lambda item: item[1])
    finding = Finding(
        "non-finite",
        "error",
        {"quantity": name, "quantities_not_finite": len(bad)},
        f"{name} stopped being a finite number: a division by zero, a logarithm of zero, or an update so "
        "large that it left the range of the numbers",
        "start anew from a checkpoint before it, with a tenth of the learning rate and gradients clipped to "
        "a norm of .5; if it comes back at the same place, look for the division: JAX_DEBUG_NANS=1, or "
        "torch.autograd.set_detect_anomaly(True)",
        course.iteration(row),
    )
    return [finding], end


def check_first_ratio(course: Course) -> list[Finding]:
    """The update does not start from the policy of the rollout.

    Before the first gradient step pi(a) / pi_old(a) is 1 up to rounding, whatever the task (1707.06347, section 3).
    """
    name = "policy/first_ratio_error"
    row = first_row(trailing(course(name), 3) > 0.01)
    if row is None:
        return []
    return [
        Finding(
            "first-ratio-mismatch",
            "error",
            {"first_ratio_error": float(course(name)[row])},
            "before any gradient step the update computes other action probabilities than the rollout did: "
            "another recurrent state, dropout or batch statistics that differ, stored log-probabilities of "
            "older parameters, or steps in another order",
            "recompute the rollout's log-probabilities with the update's code and compare them step by step; "
            "with a memory, start each chunk from the stored state, keep its steps adjacent, and reset where "
            "episodes begin",
            course.iteration(row),
        )
    ]


def check_actions_sampled(course: Course) -> list[Finding]:
    """The actions are no draws of the policy whose log-probabilities were stored."""
    certain = course("policy/entropy_share") < 0.02  # one rare draw is many standard errors
    z = accumulated(np.where(certain, np.nan, course("policy/sampling_z")), 5)
    row = first_row(np.abs(z) > 8.0)
    if row is None:
        return []
    how = "likelier" if z[row] < 0 else "less likely"
    return [
        Finding(
            "actions-not-sampled",
            "error",
            {"sampling_z": float(z[row])},
            f"the actions taken are {how} under the logged policy than draws of it would be: they are greedy, "
            "come from another distribution, or belong to other steps",
            "sample actions from the distribution whose log-probability is stored, and store it for the action taken",
            course.iteration(row),
        )
    ]


def check_memory(course: Course) -> list[Finding]:
    """Episodes begin with what the one before left in memory."""
    row = first_row(trailing(course("memory/not_blank"), 3) > 0.5)
    if row is None:
        return []
    return [
        Finding(
            "memory-not-reset",
            "error",
            {"share_of_episodes": float(course("memory/not_blank")[row])},
            "the recurrent state is carried over an episode's end, so that it tells of things that no longer are",
            "set the state to its initial value where the step before ended an episode, in the rollout and in "
            "the update",
            course.iteration(row),
        )
    ]


def check_ends(course: Course) -> list[Finding]:
    """Time limits are called terminations, or terminations time limits."""
    findings = []
    z = course("policy/consequence_z")
    longer = np.isfinite(z)  # episodes of one step have no time limit to speak of
    # all lengths equal is natural where the end is in sight; then the critic foresees it and V is not biased there
    bias = trailing(course("value/end_bias"), 8)
    count = course("episode/terminated")
    ties = (
        course("episode/terminated_at_limit") * count - 1.0
    )  # episodes as long as the longest, beside that one
    limit = trailing(np.where(count >= 2.0, ties / np.maximum(count - 1.0, 1.0), np.nan), 8)
    # a critic that knows nothing yet, or is wild, is off everywhere
    sane, rows = trailing(course("value/explained_variance"), 8) > 0.1, np.arange(len(course))
    row = lasting(sane & (limit >= 0.3) & (np.abs(bias) > 0.5) & longer & (rows >= 10))
    if row is not None:
        findings.append(
            Finding(
                "time-limit-as-termination",
                "error",
                {"terminated_at_longest": float(limit[row]), "end_bias": float(bias[row])},
                "many episodes terminate after exactly the same number of steps, and the critic does not see it "
                "coming: a time limit is treated as a final state, so that returns tell the clock, which nobody "
                "observes",
                "report the limit as a truncation and bootstrap with the value of the final observation (Pardo "
                "et al., 1712.00378), or show the agent the time that is left",
                course.iteration(row),
            )
        )
    ended, cut = course("episode/terminated"), course("episode/truncated")
    spread = trailing(course("episode/truncated_spread"), 3)
    row = first_row((spread > 0.05) & (cut >= 2))
    if row is not None:
        findings.append(
            Finding(
                "termination-as-time-limit",
                "error",
                {
                    "spread_of_truncated_lengths": float(spread[row]),
                    "truncated": float(cut[row]),
                    "terminated": float(ended[row]),
                },
                "episodes that are said to be cut by a time limit have different lengths: they ended by "
                "themselves, yet their returns go on with the value of a state that never comes",
                "bootstrap on truncation only: V(s') is 0 where the environment says terminated; check the "
                "order in which terminated and truncated are returned",
                course.iteration(row),
            )
        )
    return findings


def check_inputs(course: Course) -> list[Finding]:
    """What the agent sees does not vary."""
    row = first_row(trailing(course("features/constant"), 3) > 0.999)
    if row is None:
        return []
    return [
        Finding(
            "unlearnable-observation",
            "error",
            {"constant_features": float(course("features/constant")[row])},
            "every feature has the same value at every step: the observation is not updated, masked or divided away",
            "print a few observations in a row; look at the scaling and at what the environment returns from step",
            course.iteration(row),
        )
    ]


def check_normalizer(course: Course) -> list[Finding]:
    """Values change when only the units do, or the scale sits on its floor."""
    findings = []
    row = first_row(trailing(course("value/preserved_error"), 3) > 0.01)
    if row is not None:
        findings.append(
            Finding(
                "normalizer-stale",
                "error",
                {"preserved_error": float(course("value/preserved_error")[row])},
                "new statistics of the targets change what the critic says of the same states: it predicts in "
                "old units and is fitted in new ones",
                "update the statistics once a rollout, before the first epoch, and rescale the value head so "
                "that V stays (van Hasselt et al., 1602.07714, eq. 2)",
                course.iteration(row),
            )
        )
    row = first_row(trailing(course("value/on_floor"), 5) > 0.5)
    if row is not None:
        findings.append(
            Finding(
                "normalizer-floor",
                "warning",
                {"on_floor": float(course("value/on_floor")[row])},
                "the scale of the value targets sits on its floor: the targets do not vary, or the floor is far "
                "above them",
                "look at whether rewards differ at all; take a floor in relation to the largest scale seen, not "
                "a number",
                course.iteration(row),
            )
        )
    return findings


def check_dead_units(course: Course) -> list[Finding]:
    """Most units of a layer never change."""
    row = first_row(trailing(course("network/dead_units"), 3) > 0.75)
    if row is None:
        return []
    return [
        Finding(
            "dead-units",
            "error",
            {"share": float(course("network/dead_units")[row])},
            "most of a layer's units give the same output whatever comes in, and pass no gradient on",
            "lower the learning rate, look at the bias and the scale of the inputs, or take an activation that "
            "does not die (tanh, leaky ReLU)",
            course.iteration(row),
        )
    ]


def check_weights(course: Course) -> list[Finding]:
    """The networks' parameters shrink to a small part of what they began with."""
    norm = course("network/norm")
    known = norm[np.isfinite(norm)]
    if not len(known):
        return []
    row = lasting(trailing(norm / known[0], 3) < 0.5)
    if row is None:
        return []
    return [
        Finding(
            "weights-vanish",
            "info" if course.improved[-1] else "error",
            {"of_the_first_length": float(norm[row] / known[0])},
            "the parameters shrink while training goes on: a penalty on their size outweighs the losses, and the "
            "networks say less and less of what they see",
            "take the weight decay away, or a thousandth of it; it does not scale with the gradient where the "
            "optimiser is Adam",
            course.iteration(row),
        )
    ]
