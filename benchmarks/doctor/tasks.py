"""Tasks on which runs are made for the doctor to look at: classic ones of gymnax, and a contextual bandit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp

__all__ = ["TASKS", "Stepped", "Task", "make_task"]


class Stepped(NamedTuple):
    """What a step led to: the state and observation to go on from, and how the old episode went on."""

    state: Any
    observation: jax.Array
    final_observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


@dataclass(frozen=True)
class Task:
    """One environment, unbatched, with automatic reset.

    Attributes:
        recurrent: whether it takes a memory.
        updates: the budget of a run.
        gamma: discount that suits it.
    """

    name: str
    n_actions: int
    n_features: int
    recurrent: bool
    updates: int
    gamma: float
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    step: Callable[[jax.Array, Any, jax.Array], Stepped]


def _gymnax(
    name: str,
    updates: int,
    gamma: float = 0.99,
    recurrent: bool = False,
    hidden: tuple[int, ...] = (),
    actions: tuple[float, ...] = (),
    **changed: Any,
) -> Task:
    """A task of gymnax.

    Args:
        hidden: features that the agent does not see (velocities, so that it needs a memory).
        actions: what the numbers of actions stand for where gymnax wants a continuous one.
    """
    env, params = gymnax.make(name)
    if changed:
        params = params.replace(**changed)
    shape = jax.eval_shape(lambda key: env.reset(key, params)[0], jax.random.key(0)).shape
    seen = jnp.asarray([i for i in range(int(jnp.prod(jnp.asarray(shape)))) if i not in hidden])
    table = jnp.asarray(actions) if actions else None

    def look(observation: jax.Array) -> jax.Array:
        return observation.reshape(-1).astype(jnp.float32)[seen]

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = env.reset(key, params)
        return state, look(observation)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Stepped:
        given = action if table is None else table[action][None]
        observation, state, reward, terminated, truncated, info = env.step(key, state, given, params)
        return Stepped(
            state,
            look(observation),
            look(info["final_observation"]),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool).reshape(()),
            jnp.asarray(truncated & ~terminated, bool).reshape(()),
        )

    n_actions = len(actions) or env.num_actions
    return Task(name, n_actions, len(seen), recurrent, updates, gamma, reset, step)


def _contextual_bandit(updates: int, n_actions: int = 4, n_features: int = 8) -> Task:
    """The best arm is the largest of linear functions of the context; rewards are noisy; every episode is one step."""
    arms = jax.random.normal(jax.random.key(7), (n_features, n_actions))

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        context = jax.random.normal(key, (n_features,))
        return context, context

    def step(key: jax.Array, state: Any, action: jax.Array) -> Stepped:
        key_noise, key_reset = jax.random.split(key)
        reward = (state @ arms)[action] + jax.random.normal(key_noise)
        following, observation = reset(key_reset)
        yes = jnp.ones((), bool)
        return Stepped(following, observation, state, reward, yes, ~yes)

    return Task("ContextualBandit", n_actions, n_features, False, updates, 0.99, reset, step)


TASKS: dict[str, Callable[[], Task]] = {
    # rules were written with these in sight
    "CartPole": lambda: _gymnax("CartPole-v1", 150),
    "CartPole-velocities-hidden": lambda: _gymnax("CartPole-v1", 150, recurrent=True, hidden=(1, 3)),
    "Catch": lambda: _gymnax("Catch-bsuite", 100),
    "ContextualBandit": lambda: _contextual_bandit(80),
    # and tested on these
    "Acrobot": lambda: _gymnax("Acrobot-v1", 120),
    "Pendulum": lambda: _gymnax("Pendulum-v1", 200, gamma=0.95, actions=(-2.0, -1.0, 0.0, 1.0, 2.0)),
    "MemoryChain": lambda: _gymnax("MemoryChain-bsuite", 120, recurrent=True),
    "DiscountingChain": lambda: _gymnax("DiscountingChain-bsuite", 80),
    "FourRooms": lambda: _gymnax("FourRooms-misc", 120),
}


def make_task(name: str) -> Task:
    """The task of that name."""
    return TASKS[name]()
