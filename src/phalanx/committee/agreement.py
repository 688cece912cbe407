"""What members agree on before they vote: a middle of their opinions that liars cannot drag away."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["agree"]


def agree(
    opinions: Float[Array, "member *batch"], f: int, heard: Bool[Array, "member *batch"] | None = None
) -> Float[Array, "*batch"]:
    """The mean of the members' opinions without the f highest and the f lowest.

    Whoever hears the same opinions comes to the same middle. It lies between two opinions of honest members whatever f
    liars say: a lie that is more extreme than every honest opinion is among those left out. Of fewer opinions, f are
    left out at either end all the same: a member that is not heard may be honest and slow, so that f of those heard may
    still lie. This holds as long as 2f + 1 are heard, the quorum; of fewer the median is taken, and of none 0, but
    then there is no quorum to act on it.

    Args:
        opinions: a number of each member, in any unit; a liar's may be infinite or not a number.
        f: faults tolerated, n >= 3f + 1.
        heard: whose opinion was received; all unless given.

    Example:
        >>> agree(jnp.array([2.0, 1.0, 3.0, -1e9]), f=1).item()
        1.5
        >>> agree(jnp.array([2.0, 1.0, 3.0, -1e9]), f=1, heard=jnp.array([True, True, False, True])).item()
        1.0

    Source: Dolev, Lynch, Pinter, Stark and Weihl, "Reaching approximate agreement in the presence of faults", J. ACM
    33(3), 1986 (reduce, then mean).
    """
    if heard is None:
        ordered = jnp.sort(opinions, axis=0)
        return ordered[f : opinions.shape[0] - f].mean(axis=0)
    number = heard.sum(axis=0, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(heard, opinions, jnp.inf), axis=0)
    place = jnp.arange(opinions.shape[0], dtype=jnp.int32).reshape(-1, *(1,) * (opinions.ndim - 1))
    left_out = jnp.clip((number - 1) // 2, 0, f)[None]
    kept = (place >= left_out) & (place < number[None] - left_out)
    total = jnp.where(kept, ordered, 0.0).sum(axis=0)
    return total / jnp.maximum(kept.sum(axis=0), 1).astype(total.dtype)
