"""Value targets and advantages, in raw reward units: GAE and Monte Carlo.

``terminated`` stops the bootstrap; ``truncated`` bootstraps with the value of the final observation of the old episode;
both stop the accumulation across the episode's end (Pardo et al., "Time limits in reinforcement learning", 1712.00378).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["Targets", "gae", "monte_carlo"]


class Targets(NamedTuple):
    """Advantages and value targets, each ``[time, *batch]``, in the units of the reward."""

    advantages: Float[Array, "time *batch"]
    value_targets: Float[Array, "time *batch"]


def gae(
    rewards: Float[Array, "time *batch"],
    values: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Bool[Array, "time *batch"],
    truncated: Bool[Array, "time *batch"],
    *,
    gamma: float = 0.99,
    lam: float = 0.95,
) -> Targets:
    """Generalised advantage estimation and the lambda-return.

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t);  A_t = delta_t + gamma lambda (1 - done_t) A_{t+1};
    target_t = A_t + V(s_t).

    Args:
        rewards: r_t.
        values: V(s_t).
        next_values: V(s'_t), where s'_t is the final observation of the old episode if it ended at t.
        terminated: the episode reached a final state at t.
        truncated: the episode was cut at t.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].

    Example:
        >>> one, no = jnp.ones(3), jnp.zeros(3, bool)
        >>> gae(one, 0 * one, 0 * one, no.at[2].set(True), no, gamma=0.5, lam=1.0).value_targets.tolist()
        [1.75, 1.5, 1.0]

    Source: Schulman et al., "High-dimensional continuous control using GAE", 1506.02438, eq. 11-16.
    """
    delta = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    decay = gamma * lam * (~(terminated | truncated)).astype(rewards.dtype)

    def back(advantage: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, decay_t = step
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    return Targets(advantages, advantages + values)


def monte_carlo(
    rewards: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Bool[Array, "time *batch"],
    truncated: Bool[Array, "time *batch"],
    *,
    gamma: float = 0.99,
) -> Float[Array, "time *batch"]:
    """Discounted return to the episode's end, bootstrapped where the episode was cut or the rollout stops.

    R_t = r_t + gamma (1 - terminated_t) (V(s'_t) if truncated_t or t is last else R_{t+1}).

    Args:
        rewards: r_t.
        next_values: V(s'_t); zeros give the return that ignores what follows a cut.
        terminated: the episode reached a final state at t.
        truncated: the episode was cut at t.
        gamma: discount, in [0, 1].

    Example:
        >>> one, no = jnp.ones(3), jnp.zeros(3, bool)
        >>> monte_carlo(one, 10 * one, no, no, gamma=0.5).tolist()
        [3.0, 4.0, 6.0]
    """

    def back(following: Array, step: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, next_value, ended, cut = step
        following = jnp.where(cut, next_value, following)
        following = reward + gamma * jnp.where(ended, 0.0, following)
        return following, following

    inputs = (rewards, next_values, terminated, truncated)
    _, returns = jax.lax.scan(back, next_values[-1], inputs, reverse=True)
    return returns
