"""A reward and its specifications before training: what fixed policies earn and violate, and what no verdict moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from phalanx.analysis.doctor.finding import Finding

__all__ = ["Rehearsal", "check_specs", "check_terms"]

_ALWAYS = 0.95
"""Share of the steps above which a specification counts as violated at nearly every step, as in a run."""
_NEVER = 0.001
"""Upper bound of the share of violated steps below which a specification counts as never active."""
_SURE = 0.975  # each side of a 95 % interval
_ROUNDING = 1e-6
_SWAMPS = 1.0
"""What of a term the verdict does not decide, against what it decides of the task's reward."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """A reward played by fixed policies that all meet the same events and the same chance.

    Attributes:
        policies: their names.
        untrained: name of the one that answers as members do before they have learned anything.
        informed: names of those that know the labels; the others are within reach of an untrained committee.
        terms: reward of each policy at each step by its terms, the task's first; a step's reward is their sum.
        choices: by term, what each verdict would have brought at the steps of the untrained policy, the past and the
            chance being what they were.
        specs: robustness of each specification under each policy at each step; below 0 is violated.

    Example:
        >>> Rehearsal(("allow",), "allow", (), {"task": np.ones((1, 2))}, {"task": np.ones((2, 4))}, {}).reward.tolist()
        [[1.0, 1.0]]
    """

    policies: tuple[str, ...]
    untrained: str
    informed: tuple[str, ...]
    terms: Mapping[str, Float[np.ndarray, "policy step"]]
    choices: Mapping[str, Float[np.ndarray, "step verdict"]]
    specs: Mapping[str, Float[np.ndarray, "policy step"]]

    @property
    def reward(self) -> Float[np.ndarray, "policy step"]:
        """The sum of the terms."""
        return np.sum(list(self.terms.values()), axis=0)

    @property
    def uninformed(self) -> Bool[np.ndarray, " policy"]:
        """Which policies know no label."""
        return np.array([name not in self.informed for name in self.policies])


def check_specs(played: Rehearsal) -> list[Finding]:
    """Specifications that no verdict moves, that are violated whatever an untrained committee does, or never at all.

    At most one finding a specification: one that no verdict moves explains why it is never, or always, violated.
    """
    found = [_spec(played, name, robustness) for name, robustness in played.specs.items()]
    return [finding for finding in found if finding is not None]


def _spec(played: Rehearsal, name: str, robustness: Float[np.ndarray, "policy step"]) -> Finding | None:
    violated = (robustness < 0).mean(axis=1)
    n_steps = robustness.shape[1]
    evidence = {
        "spec": name,
        "steps": n_steps,
        **{f"violated_{policy}": float(v) for policy, v in zip(played.policies, violated, strict=True)},
    }
    if _unmoved(robustness):
        return _ignores_actions(name, robustness[0], evidence)
    known = violated[played.uninformed]
    if len(known) and known.min() > _ALWAYS:
        return _always_violated(played, name, violated, evidence)
    bound = _upper_bound(int((robustness < 0).sum(axis=1).max()), n_steps)
    if bound < _NEVER:
        return _never_active(played, name, evidence | {"violated_upper_bound": bound})
    return None


def _unmoved(robustness: Float[np.ndarray, "policy step"]) -> bool:
    """Whether it is the same under all policies at all steps, but for rounding."""
    finite = np.abs(robustness[np.isfinite(robustness)])
    allowed = _ROUNDING * (finite.max() if finite.size else 0.0)
    return len(robustness) > 1 and bool(
        np.isclose(robustness, robustness[:1], rtol=0.0, atol=allowed, equal_nan=True).all()
    )


def _upper_bound(hits: int, n: int) -> float:
    """Upper end of the 95 % interval of Clopper and Pearson (1934), as if steps were independent."""
    from scipy.stats import beta

    return 1.0 if hits >= n else float(beta.ppf(_SURE, hits + 1, n - hits))


def _ignores_actions(name: str, robustness: Float[np.ndarray, " step"], evidence: dict[str, Any]) -> Finding:
    share = float((robustness < 0).mean())
    constant = bool(np.all(robustness == robustness[0]))
    what = "a constant" if constant else "chance"
    effect = f"it is {what} and never violated, so that it costs nothing and says nothing of the committee"
    if share > 0:
        effect = f"it is {what}, violated at {_percent(share)} of the steps, and members are charged for it"
    return Finding(
        "spec-ignores-actions",
        "warning",
        evidence | {"robustness_min": float(robustness.min()), "robustness_max": float(robustness.max())},
        f"{name} has the same robustness at every step whatever the committee answers: {effect}",
        "leave it out of the reward, or state it over what verdicts change: delays, work denied, tickets, threats "
        "that went on",
    )


def _always_violated(
    played: Rehearsal, name: str, violated: Float[np.ndarray, " policy"], evidence: dict[str, Any]
) -> Finding:
    shares = dict(zip(played.policies, violated, strict=True))
    known = [shares[policy] for policy in played.policies if policy not in played.informed]
    kept = [policy for policy in played.informed if shares[policy] <= _ALWAYS]
    others = " and no policy that was tried keeps it"
    if kept:
        others = " while one that knows the labels (" + ", ".join(
            f"{policy}: violated at {_percent(shares[policy])}" for policy in kept
        )
        others += ") keeps it"
    return Finding(
        "spec-always-violated",
        "warning",
        evidence,
        f"{name} is violated at {_percent(min(known))} of the steps or more by every policy that does not know the "
        f"labels, which is where learning starts,{others}: until then its penalty comes whatever is answered, and "
        "no single verdict ends it",
        "state what a committee can reach from where it starts and tighten it later, judge single verdicts in place "
        "of a rate over many, or leave the specification out of the reward",
    )


def _never_active(played: Rehearsal, name: str, evidence: dict[str, Any]) -> Finding:
    return Finding(
        "spec-never-active",
        "warning",
        evidence,
        f"{name} is violated at fewer than {_percent(evidence['violated_upper_bound'])} of the steps under all of "
        f"{', '.join(played.policies)}: it asks for what every policy does anyway",
        "leave it out, or set its bound where a bad policy would break it",
    )


def check_terms(played: Rehearsal) -> list[Finding]:
    """Terms of the reward that bury the task's: what the verdict does not decide of them is more than all it decides.

    Of a term, the mean over the four verdicts is what comes at a step whatever is answered, and its size is N, the root
    mean square. Of the task's reward, the spread over the four verdicts is what an answer decides, and its size is S,
    the root of the mean variance. Both at the steps of the untrained policy. N / S has no unit, and is the same for a
    reward in other units.
    """
    task, *others = played.terms
    stake = float(np.sqrt(played.choices[task].var(axis=1).mean()))
    found = []
    for name in others:
        choice = played.choices[name]
        undecided = float(np.sqrt(np.square(choice.mean(axis=1)).mean()))
        if undecided <= _SWAMPS * stake:
            continue
        found.append(_buried(played, task, name, undecided, stake, float(np.sqrt(choice.var(axis=1).mean()))))
    return found


def _buried(
    played: Rehearsal, task: str, name: str, undecided: float, stake: float, decided: float
) -> Finding:
    start = played.policies.index(played.untrained)
    means = {term: values.mean(axis=1) for term, values in played.terms.items()}
    evidence = {
        "term": name,
        "undecided": undecided,
        "decided": decided,
        "task_decided": stake,
        "ratio": undecided / stake if stake > 0 else None,
        "variance_share": _share(played.terms[name][start], played.reward[start]),
        "difference_share": _share(means[name], played.reward.mean(axis=1)),
        **{
            f"{term}_{policy}": float(mean)
            for term in (task, name)
            for policy, mean in zip(played.policies, means[term], strict=True)
        },
    }
    ratio = f"{undecided / stake:.2g} times" if stake > 0 else "and nothing is"
    scatter = played.choices[name].mean(axis=1).std()
    return Finding(
        "reward-scale",
        "warning",
        evidence | {"undecided_scatter": float(scatter)},
        f"the {name} buries the {task}'s reward: where learning starts ({played.untrained} answers) its mean is "
        f"{means[name][start]:.3g} a step against {means[task][start]:.3g}, and the part of it that comes whatever "
        f"the verdict is of size {undecided:.3g} (a level, and a scatter of {scatter:.3g} about it), {ratio} what a "
        f"verdict decides of the {task}'s ({stake:.3g}): it sets the scale of returns and of the value loss, and with "
        "a time limit that counts as termination they tell the clock",
        f"weigh the {name} down until it is a fraction of the {task}'s reward, charge it to the verdicts that caused "
        "it, or make it a constraint with a multiplier of its own",
    )


def _share(part: Float[np.ndarray, " _"], whole: Float[np.ndarray, " _"]) -> float | None:
    """Share of a sum's variance that is one summand's: covariance by variance, so that shares add up to 1."""
    spread = float(whole.var())
    if spread == 0:
        return None
    return float(((part - part.mean()) * (whole - whole.mean())).mean() / spread)


def _percent(share: float) -> str:
    """A share in per cent, of three digits.

    Example:
        >>> _percent(0.99125), _percent(1.0), _percent(0.00046)
        ('99.1 %', '100 %', '0.046 %')
    """
    return f"{100 * share:.3g} %"
