"""Credit: what a member is paid for its vote.

With quorum rules a vote moves the verdict only when it is pivotal, so the committee's reward alone gives almost no
gradient near unanimity. A scheme mixes the committee's reward R with what the member's own vote would have been worth,

    r_m = R + w (credit[vote_m] - credit[verdict]),

where ``credit`` is the environment's estimate of each verdict's worth on this event and w in [0, 1] may change in the
course of training.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.committee.voting import tally, verdict_of

__all__ = ["CREDIT_SCHEMES", "DICTATOR_SHARE", "member_rewards"]

DICTATOR_SHARE = 0.2


def _own(progress: Array) -> Array:
    return jnp.ones_like(progress)


def _committee(progress: Array) -> Array:
    return jnp.zeros_like(progress)


def _half(progress: Array) -> Array:
    return jnp.full_like(progress, 0.5)


def _schedule(progress: Array) -> Array:
    """The own vote's worth for the first third of training, then the committee's reward."""
    return (progress < 1.0 / 3.0).astype(jnp.float32)


def _blend(progress: Array) -> Array:
    """The own vote's worth for the first third of training, then half and half."""
    return jnp.where(progress < 1.0 / 3.0, 1.0, 0.5)


# Weight w of the own vote's worth at a progress in [0, 1]; "difference" and "dictator" need more and are handled below.
CREDIT_SCHEMES: dict[str, Callable[[Array], Array]] = {
    "committee": _committee,
    "own": _own,
    "half": _half,
    "schedule": _schedule,
    "blend": _blend,
    "difference": _committee,
    "dictator": _committee,
}


def member_rewards(
    scheme: str,
    *,
    reward: Float[Array, "*batch"],
    credit: Float[Array, "*batch verdict"],
    votes: Int[Array, "*batch member"],
    verdict: Int[Array, "*batch"],
    f: int,
    progress: Float[Array, ""],
) -> Float[Array, "*batch member"]:
    """The reward of each member.

    - committee: R.
    - own, half: w = 1, w = 1/2.
    - schedule: w = 1 for the first third of training, then 0. blend: w = 1, then 1/2.
    - difference: R - credit[the verdict had this member voted allow] (Wolpert and Tumer, 2001).
    - dictator: R, in rollouts where a random member's vote is the verdict in 20 % of the steps.

    Args:
        scheme: name in ``CREDIT_SCHEMES``.
        reward: the committee's.
        credit: worth of each verdict on the event (``types.TimeStep.credit``).
        votes: 0..3 per member.
        verdict: that took effect.
        f: faults tolerated.
        progress: share of training done, in [0, 1].
    """
    if scheme == "difference":
        without = jnp.take_along_axis(credit, _verdicts_without(votes, f), axis=-1)
        return reward[..., None] - without
    taken = jnp.take_along_axis(credit, verdict[..., None], axis=-1)
    own = jnp.take_along_axis(credit, votes, axis=-1)
    return reward[..., None] + CREDIT_SCHEMES[scheme](progress) * (own - taken)


def _verdicts_without(votes: Int[Array, "*batch member"], f: int) -> Int[Array, "*batch member"]:
    """The verdict had each member voted allow, the others' votes being what they are."""
    n_members = votes.shape[-1]
    received = jnp.ones(n_members, bool)

    def verdicts(ballot: Array) -> Array:
        without = jnp.where(jnp.eye(n_members, dtype=bool), 0, ballot[None])
        return jax.vmap(lambda row: verdict_of(tally(row, received), f))(without)

    flat = votes.reshape(-1, n_members)
    return jax.vmap(verdicts)(flat).reshape(votes.shape)
