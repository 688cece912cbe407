"""Credit: which part of what happened a member's vote answers for.

With quorum rules a vote moves the verdict only when it is pivotal, so the committee's reward alone gives almost no
gradient near unanimity, whatever the reward. A scheme therefore mixes two objectives of a member's policy pi,

    (1 - w) [clipped surrogate of the committee's advantages] + w E[sum_a pi(a) q(a)],

where q(a), the local worth of voting a, comes from ``credit``, the environment's estimate of each verdict's worth on
this event, and w in [0, 1] may change in the course of training. All four votes are judged, not only the one that was
drawn, and the worth is scaled by its spread over verdicts, which does not depend on the policy: the local objective
neither fades nor grows when the policy becomes certain. The critic always predicts the committee's return.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.committee.voting import tally, verdict_of
from phalanx.types import N_VERDICTS

__all__ = ["CREDIT_SCHEMES", "DICTATOR_SHARE", "local_weight", "local_worth"]

DICTATOR_SHARE = 0.2
_FIRST_PHASE = 1.0 / 3.0


def _constant(weight: float) -> Callable[[Array], Array]:
    return lambda progress: jnp.full_like(progress, weight)


def _after_first_phase(weight: float) -> Callable[[Array], Array]:
    return lambda progress: jnp.where(progress < _FIRST_PHASE, 1.0, weight)


CREDIT_SCHEMES: dict[str, Callable[[Array], Array]] = {
    "committee": _constant(0.0),
    "own": _constant(1.0),
    "half": _constant(0.5),
    "schedule": _after_first_phase(0.0),
    "blend": _after_first_phase(0.5),
    "difference": _constant(1.0),
    "dictator": _constant(0.0),
}
"""The weight w at a progress in [0, 1].

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
    return CREDIT_SCHEMES[scheme](progress)


def local_worth(
    scheme: str, *, credit: Float[Array, "*batch verdict"], votes: Int[Array, "*batch member"], f: int
) -> Float[Array, "*batch member verdict"]:
    """q(a) of every vote a member could have cast: centred over a, and of root mean square 1 over everything passed.

    Args:
        scheme: name in ``CREDIT_SCHEMES``.
        credit: worth of each verdict on the event (``types.TimeStep.credit``).
        votes: 0..3 per member.
        f: faults tolerated.

    Source: all-action policy gradient: Allen et al., "Mean actor critic", 1709.00503, eq. 4; counterfactuals of one
    member's action: Foerster et al., 1705.08926, eq. 4; both with the environment's estimate in place of a learned one.
    """
    centred = credit - credit.mean(axis=-1, keepdims=True)
    spread = jnp.sqrt(jnp.square(centred).mean())
    worth = centred / jnp.where(spread > 0, spread, 1.0)
    if scheme != "difference":
        return jnp.broadcast_to(worth[..., None, :], (*votes.shape, N_VERDICTS))
    reached = _verdicts_by_vote(votes, f)
    return jnp.take_along_axis(worth[..., None, :], reached, axis=-1)


def _verdicts_by_vote(votes: Int[Array, "*batch member"], f: int) -> Int[Array, "*batch member verdict"]:
    """The verdict that each vote of each member would have led to, the others' votes being what they are."""
    n_members = votes.shape[-1]
    received = jnp.ones(n_members, bool)
    own = jnp.eye(n_members, dtype=bool)

    def reached(ballot: Array) -> Array:
        def by_vote(vote: Array) -> Array:
            return jax.vmap(lambda row: verdict_of(tally(row, received), f))(
                jnp.where(own, vote, ballot[None])
            )

        return jax.vmap(by_vote)(jnp.arange(N_VERDICTS, dtype=ballot.dtype)).T

    flat = votes.reshape(-1, n_members)
    return jax.vmap(reached)(flat).reshape(*votes.shape, N_VERDICTS)
