"""Credit: which part of what happened a member's vote answers for.

With quorum rules a vote moves the verdict only when it is pivotal, so the committee's reward alone gives almost no
gradient near unanimity, whatever the reward. A scheme therefore mixes two objectives of a member's policy pi,

    (1 - w) J + w E[log pi(a*)],   a* = argmax_a q(a),

where q(a), the local worth of voting a, comes from ``credit``, the environment's estimate of each verdict's worth on
this event, and w in [0, 1] may change in the course of training.

The local objective is a regression on the best vote rather than the expected worth sum_a pi(a) q(a): that one has no
gradient where a member is sure and wrong, and large stakes drown small ones. With the log-likelihood pi becomes the
probability that each vote is the best one, whatever the unit of the reward (the entropy bonus and J soften it). What it
costs: an event counts the same whatever is at stake. So it comes first, and J weighs the stakes.

J is the clipped surrogate of the committee's advantages or, with ``lookahead``, the expected worth of the member's vote
as if it were the verdict,

    J = c E[sum_a pi(a) (Q(a) - max_b Q(b))] / rms(max_b Q(b) - min_b Q(b)),   Q(a) = r_a + gamma V(s_a),

where r_a and s_a are what the environment answers to verdict a under the draws of the step that is taken, and V is the
mean of the members' critics (the member's own where members learn apart), which are told the core state. All four
verdicts of every event teach, not only the one that was drawn, so that J has none of the noise of a sampled action, and
an answer is worth what comes of it under the committee that there is, not what an estimate says. The critics always
predict the return of whoever decides: the committee, or the member alone.

Sources: local objective: the M-step of Abdolmaleki et al., "Maximum a posteriori policy optimisation", 1806.06920,
section 4.2, its non-parametric policy at temperature 0, the environment's estimate in the place of a learned Q.
Lookahead: the sum over all actions of Allen et al., "Mean actor critic", 1709.00503, eq. 4, with the one-step lookahead
of policy iteration (Sutton and Barto, 2nd ed., eq. 4.9) in a simulator in the place of a learned Q; a critic of the
core state as in Baisero and Amato, 2105.11674.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.committee.voting import tally, verdict_of
from phalanx.types import N_VERDICTS

__all__ = [
    "CREDIT_SCHEMES",
    "DICTATOR_SHARE",
    "NO_STAKE",
    "CreditScheme",
    "best_votes",
    "local_weight",
    "relative_worth",
]

DICTATOR_SHARE = 0.2
NO_STAKE = -1
_FIRST_PHASE = 1.0 / 3.0
_PULL = 10.0


@dataclass(frozen=True)
class CreditScheme:
    """How a member is paid.

    Attributes:
        weight: w at a progress in [0, 1].
        lookahead: J is the expected worth of all votes; else the surrogate of the committee's advantages.
        about_others: whether what a member is paid depends on the others' votes; for members that learn together.
        shadow_until: progress at which the last environment applies its verdicts; 0 where votes that caused nothing
            cannot be judged.
    """

    weight: Callable[[Array], Array]
    lookahead: bool = False
    about_others: bool = False
    shadow_until: float = 1.0


def _constant(weight: float) -> Callable[[Array], Array]:
    return lambda progress: jnp.full_like(progress, weight)


def _after_first_phase(weight: float) -> Callable[[Array], Array]:
    return lambda progress: jnp.where(progress < _FIRST_PHASE, 1.0, weight)


CREDIT_SCHEMES: dict[str, CreditScheme] = {
    "lookahead": CreditScheme(_after_first_phase(0.2), lookahead=True, shadow_until=_FIRST_PHASE),
    "committee": CreditScheme(_constant(0.0), shadow_until=0.0),
    "own": CreditScheme(_constant(1.0)),
    "half": CreditScheme(_constant(0.5)),
    "schedule": CreditScheme(_after_first_phase(0.0)),
    "blend": CreditScheme(_after_first_phase(0.5)),
    "difference": CreditScheme(_constant(1.0), about_others=True, shadow_until=0.0),
    "dictator": CreditScheme(_constant(0.0), about_others=True, shadow_until=0.0),
}
"""The schemes by name.

- lookahead: w = 1 for the first third of training, then 1/5, and J looks ahead.
- committee: w = 0; own: w = 1; half: w = 1/2.
- schedule: w = 1 for the first third of training, then 0; blend: w = 1, then 1/2.
- difference: w = 1, and q(a) is the worth of the verdict that the vote a would have led to, the others' votes being
  what they are (Wolpert and Tumer, "Optimal payoff functions for members of collectives", 2001): the same for all a
  where the vote is not pivotal.
- dictator: w = 0, in rollouts where a random member's vote is the verdict in 20 % of the steps.
"""


def local_weight(scheme: str, progress: Float[Array, ""]) -> Float[Array, ""]:
    """The weight w of the local objective.

    Args:
        scheme: name in ``CREDIT_SCHEMES``.
        progress: share of training done, in [0, 1].
    """
    return CREDIT_SCHEMES[scheme].weight(progress)


def relative_worth(worth: Float[Array, "*batch verdict"]) -> Float[Array, "*batch verdict"]:
    """The summands of J: c (Q(a) - max_b Q(b)) / rms(max_b Q(b) - min_b Q(b)), all 0 where nothing is at stake.

    Args:
        worth: Q of each verdict, in units of the reward.

    Example:
        >>> relative_worth(jnp.array([[0.0, -3.5, -1.75, -7.0], [-7.0, -7.0, 0.0, 0.0]])).tolist()
        [[0.0, -5.0, -2.5, -10.0], [-10.0, -10.0, 0.0, 0.0]]
    """
    best = worth.max(axis=-1, keepdims=True)
    unit = jnp.sqrt(jnp.square(best[..., 0] - worth.min(axis=-1)).mean())
    return jnp.where(unit > 0.0, _PULL * (worth - best) / jnp.where(unit > 0.0, unit, 1.0), 0.0)


def best_votes(
    scheme: str, *, credit: Float[Array, "*batch verdict"], votes: Int[Array, "*batch member"], f: int
) -> Int[Array, "*batch member"]:
    """The best vote of every member, the mildest of several, ``NO_STAKE`` where all votes are worth the same.

    Args:
        scheme: name in ``CREDIT_SCHEMES``.
        credit: worth of each verdict on the event (``types.TimeStep.credit``).
        votes: 0..3 per member, -1 where none was received.
        f: faults tolerated.

    Example:
        >>> credit = jnp.array([-20.0, -3.0, 0.0, 0.0])
        >>> best_votes("own", credit=credit, votes=jnp.zeros(4, jnp.int32), f=1).tolist()
        [2, 2, 2, 2]
        >>> best_votes("difference", credit=credit, votes=jnp.zeros(4, jnp.int32), f=1).tolist()
        [-1, -1, -1, -1]

    Source: counterfactuals of one member's vote: Foerster et al., 1705.08926, eq. 4, with the environment's estimate in
    place of a learned one.
    """
    worth = jnp.broadcast_to(credit[..., None, :], (*votes.shape, N_VERDICTS))
    if scheme == "difference":
        worth = jnp.take_along_axis(worth, _verdicts_by_vote(votes, f), axis=-1)
    at_stake = worth.max(axis=-1) > worth.min(axis=-1)
    return jnp.where(at_stake, jnp.argmax(worth, axis=-1), NO_STAKE).astype(jnp.int32)


def _verdicts_by_vote(votes: Int[Array, "*batch member"], f: int) -> Int[Array, "*batch member verdict"]:
    """The verdict that each vote of each member would have led to, the others' votes being what they are."""
    n_members = votes.shape[-1]
    own = jnp.eye(n_members, dtype=bool)

    def reached(ballot: Array) -> Array:
        def by_vote(vote: Array) -> Array:
            return jax.vmap(lambda row: verdict_of(tally(row, row >= 0), f))(
                jnp.where(own, vote, ballot[None])
            )

        return jax.vmap(by_vote)(jnp.arange(N_VERDICTS, dtype=ballot.dtype)).T

    flat = votes.reshape(-1, n_members)
    return jax.vmap(reached)(flat).reshape(*votes.shape, N_VERDICTS)
