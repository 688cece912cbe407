"""The voting rule (``phalanx.committee.rule``) over JAX arrays, and whose vote could have changed the verdict."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from phalanx.committee.rule import verdict_by_rule
from phalanx.verdicts import N_VERDICTS

__all__ = ["pivotal", "tally", "verdict_of"]


def tally(votes: Int[Array, " member"], received: Bool[Array, " member"]) -> Int[Array, " verdict"]:
    """How many received votes are at or above each severity: ``tally[v] = #{votes >= v}``."""
    severities = jnp.arange(N_VERDICTS, dtype=votes.dtype)
    return ((votes[:, None] >= severities[None, :]) & received[:, None]).sum(axis=0, dtype=jnp.int32)


def verdict_of(tallied: Int[Array, " verdict"], f: int) -> Int[Array, ""]:
    """The verdict for a tally.

    Args:
        tallied: ``#{votes >= v}`` for v = 0..3; ``tallied[0]`` is the number of votes received.
        f: faults tolerated.
    """
    return verdict_by_rule(tallied, f, jnp.where).astype(jnp.int32)


def pivotal(votes: Int[Array, " member"], received: Bool[Array, " member"], f: int) -> Bool[Array, " member"]:
    """Which members could have changed the verdict by another vote, the others' votes being what they are."""
    n_members = votes.shape[0]
    severities = jnp.arange(N_VERDICTS, dtype=jnp.int32)
    own = (votes[:, None] >= severities[None, :]) & received[:, None]
    others = tally(votes, received)[None] - own.astype(jnp.int32)  # [member, verdict]
    alternatives = others[:, None, :] + (severities[:, None] >= severities[None, :]).astype(jnp.int32)[None]
    reached = jnp.stack(
        [jnp.stack([verdict_of(alternatives[m, v], f) for v in range(N_VERDICTS)]) for m in range(n_members)]
    )
    return received & (reached.max(axis=1) != reached.min(axis=1))
