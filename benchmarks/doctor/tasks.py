"""Tasks on which runs are made for the doctor to look at: classic ones of gymnax, and a few of our own."""

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
    actions: tuple[Any, ...] = (),
    values: int = 0,
    **changed: Any,
) -> Task:
    """A task of gymnax.

    Args:
        hidden: features that the agent does not see (velocities, so that it needs a memory).
        actions: what the numbers of actions stand for where gymnax wants a continuous one, or several at once.
        values: of an observation that is one number, how many it can be; then it is shown as an indicator of each.
    """
    env, params = gymnax.make(name)
    if changed:
        params = params.replace(**changed)
    shape = jax.eval_shape(lambda key: env.reset(key, params)[0], jax.random.key(0)).shape
    width = values or int(jnp.prod(jnp.asarray(shape)))
    seen = jnp.asarray([i for i in range(width) if i not in hidden])
    table = jnp.asarray(actions) if actions else None

    def look(observation: jax.Array) -> jax.Array:
        shown = jax.nn.one_hot(observation, values) if values else observation.astype(jnp.float32)
        return shown.reshape(-1)[seen]

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = env.reset(key, params)
        return state, look(observation)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Stepped:
        given = action if table is None else jnp.atleast_1d(table[action])
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


def _task(
    name: str,
    updates: int,
    *,
    n_actions: int,
    reset: Callable[[jax.Array], Any],
    look: Callable[[Any], jax.Array],
    move: Callable[[jax.Array, Any, jax.Array], tuple[Any, Any, Any, Any]],
    recurrent: bool = False,
    gamma: float = 0.99,
) -> Task:
    """A task from its pieces: ``move`` gives the next state, the reward, and whether it terminated or was cut."""

    def begin(key: jax.Array) -> tuple[Any, jax.Array]:
        state = reset(key)
        return state, look(state)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Stepped:
        key_move, key_reset = jax.random.split(key)
        after, reward, terminated, truncated = move(key_move, state, action)
        terminated, truncated = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        done = terminated | truncated
        following = jax.tree.map(lambda new, old: jnp.where(done, new, old), reset(key_reset), after)
        reward = jnp.asarray(reward, jnp.float32)
        return Stepped(following, look(following), look(after), reward, terminated, truncated & ~terminated)

    n_features = jax.eval_shape(lambda key: begin(key)[1], jax.random.key(0)).shape[0]
    return Task(name, n_actions, n_features, recurrent, updates, gamma, begin, step)


def _inventory(updates: int, capacity: int = 10, days: int = 50) -> Task:
    """Orders for a store: demand is lost where stock lacks, what is kept costs (Puterman 1994, section 3.2.1)."""

    def move(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any, Any]:
        stock, day = state
        ordered = jnp.minimum(2 * action, capacity - stock)
        demand = jnp.minimum(jax.random.poisson(key, 3.0), capacity)
        sold = jnp.minimum(stock + ordered, demand)
        left = stock + ordered - sold
        reward = 4.0 * sold - 2.0 * ordered - 1.0 * (ordered > 0) - 0.5 * left
        return (left, day + 1), reward, False, day + 1 >= days

    return _task(
        "Inventory",
        updates,
        n_actions=5,
        reset=lambda key: (jax.random.randint(key, (), 0, capacity + 1), jnp.zeros((), jnp.int32)),
        look=lambda state: jax.nn.one_hot(state[0], capacity + 1),
        move=move,
        gamma=0.9,
    )


def _blackjack(updates: int) -> Task:
    """Stick or hit against a dealer who sticks at 17 (Sutton and Barto 2018, example 5.1)."""

    def card(key: jax.Array) -> jax.Array:
        return jnp.minimum(jax.random.randint(key, (), 1, 14), 10)

    def total(points: jax.Array, ace: jax.Array) -> jax.Array:
        return jnp.where(ace & (points <= 11), points + 10, points)

    def reset(key: jax.Array) -> Any:
        first, second, shown = (card(k) for k in jax.random.split(key, 3))
        return first + second, (first == 1) | (second == 1), shown

    def dealt(key: jax.Array, shown: jax.Array) -> jax.Array:
        def draw(carry: Any, key: jax.Array) -> tuple[Any, None]:
            points, ace = carry
            new = card(key)
            more = total(points, ace) < 17
            return (jnp.where(more, points + new, points), ace | more & (new == 1)), None

        (points, ace), _ = jax.lax.scan(draw, (shown, shown == 1), jax.random.split(key, 10))
        return total(points, ace)

    def move(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any, Any]:
        points, ace, shown = state
        key_card, key_dealer = jax.random.split(key)
        new = card(key_card)
        hit = action == 1
        points, ace = jnp.where(hit, points + new, points), ace | hit & (new == 1)
        bust = points > 21
        mine, dealer = total(points, ace), dealt(key_dealer, shown)
        against = jnp.where(dealer > 21, 1.0, jnp.sign((mine - dealer).astype(jnp.float32)))
        reward = jnp.where(bust, -1.0, jnp.where(hit, 0.0, against))
        return (points, ace, shown), reward, bust | ~hit, False

    def look(state: Any) -> jax.Array:
        points, ace, shown = state
        usable = ace & (points <= 11)
        own = jax.nn.one_hot(jnp.clip(total(points, ace) - 4, 0, 18), 19)
        return jnp.concatenate([own, jax.nn.one_hot(shown - 1, 10), usable.astype(jnp.float32)[None]])

    return _task("Blackjack", updates, n_actions=2, reset=reset, look=look, move=move, gamma=1.0)


def _corridor(updates: int, length: int = 4) -> Task:
    """A cue at the beginning of a corridor says where to turn at its end: it takes a memory (Bakker 2001)."""

    def move(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, Any, Any]:
        cue, at = state
        end = at >= length
        right = action == 1 + cue
        reward = jnp.where(end, jnp.where(right, 1.0, -1.0), jnp.where(action == 0, 0.1, 0.0))
        return (cue, at + 1), reward, end, False

    def look(state: Any) -> jax.Array:
        cue, at = state
        begins = (at == 0).astype(jnp.float32)
        return jnp.concatenate(
            [begins[None] * jax.nn.one_hot(cue, 2), jnp.stack([at >= length, at == 0]).astype(jnp.float32)]
        )

    def reset(key: jax.Array) -> Any:
        return jax.random.randint(key, (), 0, 2), jnp.zeros((), jnp.int32)

    return _task("Corridor", updates, n_actions=3, reset=reset, look=look, move=move, recurrent=True)


_TORQUES = tuple((a, b) for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0))

TASKS: dict[str, Callable[[], Task]] = {
    # rules were written with these in sight; the last four were the test of an earlier version of the rules
    "CartPole": lambda: _gymnax("CartPole-v1", 150),
    "CartPole-velocities-hidden": lambda: _gymnax("CartPole-v1", 60, recurrent=True, hidden=(1, 3)),
    "Catch": lambda: _gymnax("Catch-bsuite", 100),
    "ContextualBandit": lambda: _contextual_bandit(80),
    "Acrobot": lambda: _gymnax("Acrobot-v1", 120),
    "Pendulum": lambda: _gymnax("Pendulum-v1", 200, gamma=0.95, actions=(-2.0, -1.0, 0.0, 1.0, 2.0)),
    "DiscountingChain": lambda: _gymnax("DiscountingChain-bsuite", 80),
    "MemoryChain": lambda: _gymnax("MemoryChain-bsuite", 120, recurrent=True),
    # and tested on these
    "FrozenLake": lambda: _gymnax("FrozenLake-misc", 100, values=16),
    "UmbrellaChain": lambda: _gymnax("UmbrellaChain-bsuite", 100),
    "Reacher": lambda: _gymnax("Reacher-misc", 150, gamma=0.95, actions=_TORQUES),
    "Inventory": lambda: _inventory(80),
    "Blackjack": lambda: _blackjack(80),
    "Corridor": lambda: _corridor(60),
}


def make_task(name: str) -> Task:
    """The task of that name."""
    return TASKS[name]()
