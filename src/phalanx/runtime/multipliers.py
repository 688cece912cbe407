"""One Lagrange multiplier per specification: its price rises while it is violated more often than it may be.

    m_i <- clip(m_i + rate (share_i - (1 - level)), 0, most)

where share_i is the share of steps at which specification i was violated in the last rollout. ``envs.constrained``
charges the prices.

Source: Altman, "Constrained Markov decision processes", 1999, chapter 3; Tessler, Mankowitz and Mannor, "Reward
constrained policy optimization", 1805.11074, eq. 8 (the multiplier on a slower time scale than the policy).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["MultiplierConfig", "raised"]


@dataclass(frozen=True)
class MultiplierConfig:
    """How prices follow violations.

    Attributes:
        level: share of the steps at which a specification has to hold, in [0, 1].
        rate: rise of a price, in units of reward a step, for one iteration of nothing but violations.
        most: highest price.
        adapt: whether prices move at all.
    """

    level: float = 0.99
    rate: float = 1.0
    most: float = 10.0
    adapt: bool = True


def raised(
    config: MultiplierConfig,
    multipliers: Float[Array, " spec"],
    violated: Float[Array, " spec"],
    active: Bool[Array, ""],
) -> Float[Array, " spec"]:
    """The prices after an iteration.

    Args:
        config: settings.
        multipliers: the prices so far.
        violated: share of the steps at which each specification was violated, in [0, 1].
        active: whether what is learned heeds the prices yet; they stay where they are before.

    Example:
        >>> config = MultiplierConfig(level=0.5, rate=1.0)
        >>> raised(config, jnp.zeros(2), jnp.array([0.75, 0.25]), jnp.array(True)).tolist()
        [0.25, 0.0]
    """
    moved = jnp.clip(multipliers + config.rate * (violated - (1.0 - config.level)), 0.0, config.most)
    return jnp.where(active & config.adapt, moved, multipliers)
