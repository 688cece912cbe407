"""What members agree on before they vote: a middle of their opinions that liars cannot drag away."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["agree"]


def agree(opinions: Float[Array, "member *batch"], f: int) -> Float[Array, "*batch"]:
    """The mean of the members' opinions without the f highest and the f lowest.

    Whoever hears the same n opinions comes to the same middle. It lies between two opinions of honest members whatever
    f liars say: a lie that is more extreme than every honest opinion is among those left out.

    Args:
        opinions: a number of each member, in any unit.
        f: faults tolerated, n >= 3f + 1.

    Example:
        >>> agree(jnp.array([2.0, 1.0, 3.0, -1e9]), f=1).item()
        1.5

    Source: Dolev, Lynch, Pinter, Stark and Weihl, "Reaching approximate agreement in the presence of faults", J. ACM
    33(3), 1986 (reduce, then mean).
    """
    ordered = jnp.sort(opinions, axis=0)
    return ordered[f : opinions.shape[0] - f].mean(axis=0)
